"""
The laws of micro-batches, against time that a test moves and against threads that it does not.
"""

import threading
from collections import defaultdict
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fake_outcomes import ManualClock
from tests.loop_world import eventually
from worker.flow.coming import Coming
from worker.flow.inbox import Inbox
from worker.flow.micro_batch import LEAST_SHARE, MicroBatcher

deeds = st.lists(
    st.one_of(
        st.just(("put", 0.0)),
        st.just(("take", 0.0)),
        st.tuples(st.just("wait"), st.floats(0.0, 0.4, allow_nan=False)),
    ),
    max_size=60,
)
sizes = st.integers(1, 6)
deadlines = st.floats(0.0, 1.0, allow_nan=False)


def due(waiting: list[tuple[float, int]], now_s: float, size: int, deadline_s: float) -> str | None:
    """
    Why a batch would close, in the words of the promise.
    """
    if len(waiting) >= size:
        return "size"
    if waiting and now_s - waiting[0][0] >= deadline_s:
        return "deadline"
    return None


@given(deeds=deeds, size=sizes, deadline_s=deadlines)
def test_batches_are_bounded_whole_and_in_order(deeds: list[tuple[str, float]], size: int, deadline_s: float) -> None:
    """
    Nothing is lost, doubled or out of order, and no batch is empty or over its size.

    None closes before it is full or the time of its oldest item is up, and none stays open after that.
    """
    clock = ManualClock()
    batcher: MicroBatcher[int] = MicroBatcher(size=size, deadline_s=deadline_s, clock=clock)
    waiting: list[tuple[float, int]] = []
    taken: list[int] = []
    put = 0
    for deed, wait_s in deeds:
        clock.now_s += wait_s
        if deed == "put":
            batcher.put(put)
            waiting.append((clock.now_s, put))
            put += 1
        expected = due(waiting, clock.now_s, size, deadline_s)
        assert expected == batcher.due(clock.now_s)
        if deed == "take" and expected is not None:
            found = batcher.take()
            assert found is not None
            assert expected == found[1]
            assert [item for _, item in waiting[:size]] == found[0]
            taken += found[0]
            del waiting[:size]
    batcher.close()
    while (last := batcher.take()) is not None:
        assert 1 <= len(last[0]) <= size
        assert last[1] == "size" or (last[1] == "drain" and len(last[0]) < size)
        taken += last[0]

    assert list(range(put)) == taken


@given(
    deeds=st.lists(
        st.one_of(
            st.just(("set out", 0.0)),
            st.just(("arrive", 0.0)),
            st.just(("stay away", 0.0)),
            st.tuples(st.just("wait"), st.floats(0.0, 0.4, allow_nan=False)),
        ),
        max_size=60,
    ),
    size=sizes,
    deadline_s=deadlines,
)
def test_a_batch_waits_for_nobody_who_does_not_come(
    deeds: list[tuple[str, float]], size: int, deadline_s: float
) -> None:
    """
    With somebody on the way all is as without knowing; with nobody, whatever waits is due at once.

    And who counts what is coming can make no batch close later than by size and deadline.
    """
    clock, coming = ManualClock(), Coming()
    batcher: MicroBatcher[int] = MicroBatcher(size=size, deadline_s=deadline_s, clock=clock, coming=coming)
    waiting: list[tuple[float, int]] = []
    under_way = 0
    for deed, wait_s in deeds:
        clock.now_s += wait_s
        if deed == "set out":
            coming.more()
            under_way += 1
        elif deed != "wait" and under_way:
            if deed == "arrive":
                batcher.put(len(waiting))
                waiting.append((clock.now_s, len(waiting)))
            coming.fewer()
            under_way -= 1
        expected = due(waiting, clock.now_s, size, deadline_s) or ("arrived" if waiting and not under_way else None)

        assert expected == batcher.due(clock.now_s)
        assert coming.nobody == (under_way == 0)
        if expected is not None:
            found = batcher.take()
            assert found is not None
            assert expected == found[1]
            del waiting[:size]


def test_a_taker_that_waits_is_woken_when_the_last_one_turns_back() -> None:
    """
    Neither who arrives last nor who fails on the way lets a batch wait for its deadline, however far away.
    """
    coming = Coming()
    batcher: MicroBatcher[int] = MicroBatcher(size=3, deadline_s=3600.0, clock=ManualClock(), coming=coming)
    taken: list[object] = []

    def take() -> None:
        while (found := batcher.take()) is not None:
            taken.append(found)

    taker = threading.Thread(target=take, daemon=True)
    coming.more(2)
    taker.start()
    batcher.put(0)
    coming.fewer()
    eventually(lambda: bool(batcher._changed._waiters))  # type: ignore[attr-defined] # the condition's own
    coming.fewer()
    eventually(lambda: len(taken) == 1)
    coming.more()
    batcher.put(1)
    coming.fewer()
    eventually(lambda: len(taken) == 2)
    batcher.close()
    taker.join(60)

    assert [([0], "arrived"), ([1], "arrived")] == taken


@given(items=st.integers(0, 20), limit=st.integers(1, 5), batched=st.booleans())
def test_an_inbox_counts_what_is_in_it_or_in_hand(items: int, limit: int, batched: bool) -> None:
    """
    What is taken counts until its reader comes back for more; when all is read nothing is left.
    """
    coming = Coming()
    inbox: Inbox[int] = Inbox(coming=coming)
    for item in range(items):
        inbox.put(item)
    inbox.close()
    left = items
    for taken in inbox.batches(limit) if batched else ([item] for item in inbox):
        assert left == coming._count
        left -= len(taken)

    assert (0, 0) == (left, coming._count)


def test_several_takers_share_what_is_left() -> None:
    """
    What a full batch leaves behind has its deadline, or is full itself: another taker that sleeps is told of it.
    """
    clock = ManualClock()
    batcher: MicroBatcher[int] = MicroBatcher(size=2, deadline_s=3600.0, clock=clock)
    taken: list[list[int]] = []
    hold = threading.Event()

    def take() -> None:
        while (found := batcher.take()) is not None:
            taken.append(found[0])
            hold.wait(60)

    takers = [threading.Thread(target=take, daemon=True) for _ in range(2)]
    for taker in takers:
        taker.start()
    eventually(lambda: len(batcher._changed._waiters) == 2)  # type: ignore[attr-defined] # likewise
    for item in range(4):
        batcher.put(item)
    eventually(lambda: len(taken) == 2)
    hold.set()
    batcher.close()
    for taker in takers:
        taker.join(60)

    assert [[0, 1], [2, 3]] == sorted(taken)


@given(items=st.integers(0, 60), size=st.integers(1, 16), takers=st.integers(1, 4), closes=st.booleans())
def test_what_is_left_is_shared_when_nobody_else_comes(items: int, size: int, takers: int, closes: bool) -> None:
    """
    None of those who take at once has more than its share, or the least that is worth a batch; nothing is left over.

    While somebody is on the way batches are as full as without sharing.
    """
    coming = Coming()
    batcher: MicroBatcher[int] = MicroBatcher(
        size=size, deadline_s=0.0, clock=ManualClock(), coming=coming, takers=takers
    )
    coming.more()
    for item in range(items):
        batcher.put(item)
    taken: list[int] = []
    if items:
        found = batcher.take()
        assert found is not None
        assert list(range(min(size, items))) == found[0]
        taken += found[0]
    if closes:
        batcher.close()
    else:
        coming.fewer()
    while len(taken) < items:
        left = items - len(taken)
        found = batcher.take()
        assert found is not None
        assert min(left, size, max(LEAST_SHARE, ceil(left / takers))) == len(found[0])
        taken += found[0]

    assert list(range(items)) == taken


def test_a_taker_that_sleeps_is_woken_for_its_share() -> None:
    """
    When the last one has arrived, two idle takers encode half of the pictures each, in the same moment.
    """
    coming = Coming()
    batcher: MicroBatcher[int] = MicroBatcher(size=32, deadline_s=3600.0, clock=ManualClock(), coming=coming, takers=2)
    taken: list[list[int]] = []
    both = threading.Barrier(2)

    def take() -> None:
        found = batcher.take()
        assert found is not None
        taken.append(found[0])
        both.wait(60)  # neither comes back for the other's share

    takers = [threading.Thread(target=take, daemon=True) for _ in range(2)]
    coming.more()
    for taker in takers:
        taker.start()
    eventually(lambda: len(batcher._changed._waiters) == 2)  # type: ignore[attr-defined] # the condition's own
    for item in range(2 * LEAST_SHARE):
        batcher.put(item)
    coming.fewer()
    for taker in takers:
        taker.join(60)

    assert [list(range(LEAST_SHARE)), list(range(LEAST_SHARE, 2 * LEAST_SHARE))] == sorted(taken)


def test_a_taker_that_waits_is_woken_by_the_item_that_fills_the_batch() -> None:
    """
    Neither a batch that fills nor one that is closed waits for a deadline, however far away.
    """
    batcher: MicroBatcher[int] = MicroBatcher(size=3, deadline_s=3600.0, clock=ManualClock())
    taken: list[object] = []

    def take() -> None:
        while (found := batcher.take()) is not None:
            taken.append(found)

    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    for item in range(3):
        eventually(lambda: bool(batcher._changed._waiters))  # type: ignore[attr-defined] # the condition's own
        batcher.put(item)
    eventually(lambda: len(taken) == 1)
    batcher.put(3)
    eventually(lambda: bool(batcher._changed._waiters))  # type: ignore[attr-defined] # likewise
    batcher.close()
    taker.join(60)

    assert [([0, 1, 2], "size"), ([3], "drain")] == taken


@settings(max_examples=20, deadline=None)
@given(putters=st.integers(1, 4), each=st.integers(0, 25), size=sizes, deadline_s=st.sampled_from([0.0, 0.001, 60.0]))
def test_threads_that_put_and_one_that_takes(putters: int, each: int, size: int, deadline_s: float) -> None:
    """
    Whatever threads put at once is taken exactly once, each thread's items in its order, and the taker ends.
    """
    clock = ManualClock()
    batcher: MicroBatcher[tuple[int, int]] = MicroBatcher(size=size, deadline_s=deadline_s, clock=clock)
    batches: list[list[tuple[int, int]]] = []

    def put(thread: int) -> None:
        for number in range(each):
            batcher.put((thread, number))

    def take() -> None:
        while (found := batcher.take()) is not None:
            batches.append(found[0])

    threads = [threading.Thread(target=put, args=(thread,)) for thread in range(putters)]
    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batcher.close()
    taker.join(60)
    found: dict[int, list[int]] = defaultdict(list)
    for batch in batches:
        for putter, number in batch:
            found[putter].append(number)

    assert not taker.is_alive()
    assert all(1 <= len(batch) <= size for batch in batches)
    assert {putter: list(range(each)) for putter in range(putters) if each} == found


@given(began_s=st.floats(0, 1e6), waited_s=st.floats(0, 10), deadline_s=st.floats(0, 10))
def test_a_taker_never_spins_on_a_batch_that_stays_open(began_s: float, waited_s: float, deadline_s: float) -> None:
    """
    Whenever a batch is not yet due, the taker waits for some time above zero, whatever the floats round to.
    """
    clock = ManualClock()
    clock.now_s = began_s
    batcher: MicroBatcher[int] = MicroBatcher(size=2, deadline_s=deadline_s, clock=clock)
    batcher.put(1)
    clock.now_s = began_s + waited_s
    waits: list[float | None] = []

    def wait(timeout: float | None = None) -> bool:
        waits.append(timeout)
        batcher.close()
        return True

    batcher._changed.wait = wait  # type: ignore[method-assign] # to see what it would wait for
    is_due = batcher.due(clock.now_s) is not None
    batcher.take()

    assert [] == waits if is_due else len(waits) == 1
    assert all(timeout is not None and timeout > 0 for timeout in waits)
