"""
How many fetches a host may hold, and when it is left alone.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager

import pytest

from schemas.errors import ErrorCode
from tests.fake_outcomes import ManualClock
from worker.adapters.fetch_limits import FetchLimits, fetch_limits
from worker.adapters.host_gates import HOSTS_REMEMBERED, HostGates
from worker.errors import UploadFailed
from worker.settings.images import FetchSettings
from worker.telemetry.metrics import InMemoryRecorder

HOST = "images.test:443"
SETTINGS = FetchSettings(
    threads=4, per_host_connections=2, host_wait_s=50, breaker_failures=3, breaker_open_s=30, connect_timeout_s=2
)


@pytest.fixture
def clock() -> ManualClock:
    """
    A clock that stands still.
    """
    return ManualClock()


@pytest.fixture
def recorder() -> InMemoryRecorder:
    """
    What the gates count.
    """
    return InMemoryRecorder()


@pytest.fixture
def gates(clock: ManualClock, recorder: InMemoryRecorder) -> HostGates:
    """
    Two fetches for a host at a time, and three failures in a row.
    """
    return HostGates(SETTINGS, clock=clock, recorder=recorder)


def one(
    gates: HostGates,
    failed: UploadFailed | None = None,
    *,
    host: str = HOST,
    after: Callable[[], None] = lambda: None,
) -> ErrorCode | None:
    """
    A fetch that ends so; the code with which it left its gate.
    """
    try:
        with gates.through(host):
            after()
            if failed is not None:
                raise failed
    except UploadFailed as left:
        return left.code
    return None


def upstream(status: int | None = None, *, retry_after_s: float | None = None) -> UploadFailed:
    """
    The host's own failure.
    """
    return UploadFailed(ErrorCode.FETCH_UPSTREAM, "broken", http_status=status, retry_after_s=retry_after_s)


def counted(recorder: InMemoryRecorder, result: str) -> float:
    """
    How often that was counted.
    """
    return recorder.snapshot().get(f'fetch_breaker_total{{result="{result}"}}', 0)


@contextmanager
def held(gates: HostGates, count: int, *, host: str = HOST) -> Iterator[threading.Event]:
    """
    So many fetches are under way; they end when the event is set, or with the block.
    """
    end = threading.Event()
    inside = threading.Semaphore(0)

    def fetch() -> None:
        with gates.through(host):
            inside.release()
            end.wait()

    with ThreadPoolExecutor(count) as pool:
        running = [pool.submit(fetch) for _ in range(count)]
        for _ in range(count):
            assert inside.acquire(timeout=60)
        try:
            yield end
        finally:
            end.set()
            for each in running:
                each.result(60)


def test_a_host_is_left_alone_after_failures_in_a_row(
    gates: HostGates, clock: ManualClock, recorder: InMemoryRecorder
) -> None:
    """
    The third failure opens it; what comes then is put off unasked, and told when to come again.
    """
    codes = [one(gates, upstream(502)) for _ in range(3)]
    clock.now_s += 10
    with pytest.raises(UploadFailed) as refused, gates.through(HOST):
        pytest.fail("a host that is left alone was asked")

    assert [ErrorCode.FETCH_UPSTREAM] * 3 == codes
    assert (ErrorCode.FETCH_HOST_DOWN, 20.0) == (refused.value.code, refused.value.retry_after_s)
    assert 1 == counted(recorder, "opened")
    assert 1 == counted(recorder, "refused")


def test_one_fetch_tries_whether_it_answers_again(
    gates: HostGates, clock: ManualClock, recorder: InMemoryRecorder
) -> None:
    """
    After the pause one goes; while it is under way the others are put off, and when it is answered all may go.
    """
    for _ in range(3):
        one(gates, upstream())
    clock.now_s += 30
    with gates.through(HOST):
        beside = one(gates)

    assert ErrorCode.FETCH_HOST_DOWN is beside
    assert one(gates) is None
    assert 1 == counted(recorder, "closed")


@pytest.mark.parametrize(
    "failed",
    [
        UploadFailed(ErrorCode.FETCH_NOT_FOUND, "answered 404", http_status=404),
        UploadFailed(ErrorCode.FETCH_DENIED, "answered 403", http_status=403),
        UploadFailed(ErrorCode.FETCH_REDIRECT, "answered 304", http_status=304),
        UploadFailed(ErrorCode.FETCH_TOO_LARGE, "sends more"),
        UploadFailed(ErrorCode.FETCH_UPSTREAM, "sent gzip", http_status=200),
        UploadFailed(ErrorCode.FETCH_UPSTREAM, "answered 408", http_status=408),
        None,
    ],
    ids=lambda failed: "an image" if failed is None else failed.detail,
)
def test_an_answer_is_an_answer(gates: HostGates, failed: UploadFailed | None) -> None:
    """
    Whatever a host answers that is alive, it breaks a row of failures.
    """
    for _ in range(3):
        one(gates, upstream())
        one(gates, upstream())
        one(gates, failed)

    assert one(gates) is None


@pytest.mark.parametrize(
    "failed",
    [
        upstream(429, retry_after_s=1),
        upstream(429),
        upstream(500),
        upstream(501),
        upstream(520),
        UploadFailed(ErrorCode.REF_FORBIDDEN, "resolves to a private address"),
        UploadFailed(ErrorCode.FETCH_TIMEOUT, "the hops before took all the time"),
    ],
    ids=["it says when", "it says later", "500", "501", "520", "refused here", "no time was left"],
)
def test_what_says_nothing_of_the_host_counts_neither_way(gates: HostGates, failed: UploadFailed) -> None:
    """
    It opens nothing, however often; and a row of failures goes on around it.
    """
    for _ in range(5):
        one(gates, failed)
    still_asked = one(gates, upstream())
    one(gates, upstream())
    one(gates, failed)
    one(gates, upstream())

    assert ErrorCode.FETCH_UPSTREAM is still_asked
    assert ErrorCode.FETCH_HOST_DOWN is one(gates)


@pytest.mark.parametrize(
    ("code", "status", "took_s"),
    [
        (ErrorCode.FETCH_TIMEOUT, None, 2.0),
        (ErrorCode.FETCH_TOO_SLOW, None, 5.0),
        (ErrorCode.FETCH_UPSTREAM, None, 0.0),
        (ErrorCode.FETCH_UPSTREAM, 502, 0.0),
        (ErrorCode.FETCH_UPSTREAM, 503, 0.0),
        (ErrorCode.FETCH_UPSTREAM, 504, 0.0),
    ],
)
def test_each_failure_of_a_host_counts(
    gates: HostGates, clock: ManualClock, code: ErrorCode, status: int | None, took_s: float
) -> None:
    """
    Time-outs that were its own, slowness, no answer at all, and what is answered in the place of a host that is down.
    """
    failed = UploadFailed(code, "failed", http_status=status)
    for _ in range(3):
        one(gates, failed, after=lambda: setattr(clock, "now_s", clock.now_s + took_s))

    assert ErrorCode.FETCH_HOST_DOWN is one(gates)


def test_hosts_do_not_answer_for_each_other(gates: HostGates) -> None:
    """
    One that is down, or full, keeps nobody from another.
    """
    for _ in range(3):
        one(gates, upstream())
    with held(gates, 2, host="full.test:443"):
        other = one(gates, host="other.test:443")

    assert other is None


def test_fetches_wait_for_their_turn(gates: HostGates) -> None:
    """
    Of forty in ten threads two are under way at a time, never more, and every one of them has its turn.
    """
    counting = threading.Lock()
    inside: list[int] = [0]
    seen: set[int] = set()

    def fetch() -> None:
        with gates.through(HOST):
            with counting:
                inside[0] += 1
                seen.add(inside[0])
            threading.Event().wait(0.002)
            with counting:
                inside[0] -= 1

    with ThreadPoolExecutor(10) as pool:
        for ended in [pool.submit(fetch) for _ in range(40)]:
            ended.result(60)

    assert {1, 2} == seen


def test_nobody_waits_for_a_host_whose_fetches_do_not_end(clock: ManualClock, recorder: InMemoryRecorder) -> None:
    """
    Who waited in vain is put off; those who come after it do not wait at all, until a fetch of that host ends.
    """
    gates = HostGates(SETTINGS.model_copy(update={"host_wait_s": 2.0}), clock=clock, recorder=recorder)
    with held(gates, 2):
        started_s = time.monotonic()
        first = one(gates)
        waited_s = time.monotonic() - started_s
        rest = [one(gates) for _ in range(20)]
        all_s = time.monotonic() - started_s
    again = one(gates)

    assert [ErrorCode.FETCH_HOST_DOWN] * 21 == [first, *rest]
    assert waited_s >= 2
    assert all_s < 30  # twenty waits more would be forty seconds
    assert again is None
    assert 21 == counted(recorder, "refused")


def test_a_halt_of_the_own_store_puts_nothing_off(clock: ManualClock, recorder: InMemoryRecorder) -> None:
    """
    At a place of the platform's own a fetch waits for its turn beyond the usual wait, as long as it may take.
    """
    gates = HostGates(SETTINGS.model_copy(update={"host_wait_s": 0.05}), clock=clock, recorder=recorder)

    def fetch() -> None:
        with gates.through(HOST, own=True):
            pass

    with held(gates, 2) as end, ThreadPoolExecutor(10) as pool:
        waiting = [pool.submit(fetch) for _ in range(10)]
        with pytest.raises(FutureTimeoutError):
            waiting[0].result(0.2)
        end.set()
        for ended in waiting:
            ended.result(60)

    assert 0 == counted(recorder, "refused")


def test_a_wait_is_never_longer_than_the_fetch(gates: HostGates) -> None:
    """
    The time limit of the whole fetch cuts it, and one that was cut short condemns nobody after it.
    """
    with held(gates, 2) as end, ThreadPoolExecutor(1) as pool:
        started_s = time.monotonic()
        with fetch_limits(FetchLimits(total_s=0.2)):
            code = one(gates)
        took_s = time.monotonic() - started_s
        after = pool.submit(one, gates)
        end.set()
        waited = after.result(60)

    assert ErrorCode.FETCH_HOST_DOWN is code
    assert took_s < SETTINGS.host_wait_s
    assert waited is None


def test_one_thread_is_always_left_to_others(clock: ManualClock, recorder: InMemoryRecorder) -> None:
    """
    However many connections a host may have, it has one less than there are threads; a single thread serves all.
    """
    many = FetchSettings(threads=3, per_host_connections=100, host_wait_s=0.01)
    gates = HostGates(many, clock=clock, recorder=recorder)
    with held(gates, 2):
        third = one(gates)
    alone = one(HostGates(many.model_copy(update={"threads": 1}), clock=clock, recorder=recorder))

    assert ErrorCode.FETCH_HOST_DOWN is third
    assert alone is None


def test_hosts_are_not_remembered_without_end(gates: HostGates) -> None:
    """
    However many names an uploader has; one that is being fetched from is not forgotten.
    """
    with held(gates, 2):
        for number in range(HOSTS_REMEMBERED + 50):
            one(gates, host=f"{number}.evil.test:443")
        remembered = len(gates)
        with fetch_limits(FetchLimits(total_s=0.05)):
            full = one(gates)

    assert HOSTS_REMEMBERED == remembered
    assert ErrorCode.FETCH_HOST_DOWN is full


def test_whatever_leaves_a_gate_frees_its_place(gates: HostGates) -> None:
    """
    Also an error that is none of ours.
    """
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), gates.through(HOST):
            raise ZeroDivisionError
    with held(gates, 2):
        pass

    assert one(gates) is None
