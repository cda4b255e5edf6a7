"""
The two laws on which everything stands: results leave in order, and no offset passes an unfinished upload.
"""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from tests.fake_outcomes import an_outcome
from worker.domain import Partition, RawEvent
from worker.flow.ledger import OffsetLedger
from worker.flow.lines import Lines, Slot

PARTITIONS = [Partition("uploads", number) for number in range(3)]

arrivals = st.lists(st.sampled_from(PARTITIONS), min_size=1, max_size=40)


def take_all(lines: Lines, order: list[Partition]) -> list[Slot]:
    """
    A slot for each arrival; offsets count up within each partition, with gaps, as a compacted topic has them.
    """
    following: dict[Partition, int] = defaultdict(int)
    slots = []
    for partition in order:
        slots.append(lines.take(RawEvent(partition, following[partition], None, b"")))
        following[partition] += 1 + len(slots) % 3
    return slots


@given(order=arrivals, data=st.data())
def test_what_is_released_is_in_order_and_complete(order: list[Partition], data: st.DataObject) -> None:
    """
    However the outcomes arrive, each partition's slots are released in the order of their reading, each exactly once.
    """
    lines = Lines()
    slots = take_all(lines, order)
    released: list[Slot] = []
    for slot in data.draw(st.permutations(slots)):
        lines.settle(slot, an_outcome())
        released += lines.release(data.draw(st.integers(1, 5)))
    while more := lines.release(5):
        released += more

    assert lines.waiting == 0
    assert len(slots) == len(released) == len(set(map(id, released)))
    for partition in PARTITIONS:
        assert [slot for slot in slots if slot.event.partition == partition] == [
            slot for slot in released if slot.event.partition == partition
        ]


@given(order=arrivals, data=st.data())
def test_a_committed_offset_never_passes_an_unfinished_upload(order: list[Partition], data: st.DataObject) -> None:
    """
    With completions and acknowledgements in any order, everything below a committable offset is acknowledged.
    """
    lines = Lines()
    ledger = OffsetLedger()
    slots = take_all(lines, order)
    acknowledged: set[int] = set()
    in_the_air: list[Slot] = []
    to_settle = list(data.draw(st.permutations(slots)))
    while to_settle or in_the_air or lines.waiting:
        if to_settle and (not in_the_air or data.draw(st.booleans())):
            lines.settle(to_settle.pop(), an_outcome())
            for slot in lines.release(100):
                ledger.release(slot.event.partition, slot.event.offset)
                in_the_air.append(slot)
        elif in_the_air:
            slot = in_the_air.pop(data.draw(st.integers(0, len(in_the_air) - 1)))
            acknowledged.add(id(slot))
            ledger.acknowledge(slot.event.partition, slot.event.offset)

        offsets = ledger.committable()
        ledger.commit(offsets)

        for partition, offset in offsets.items():
            below = [slot for slot in slots if slot.event.partition == partition and slot.event.offset < offset]
            assert all(id(slot) in acknowledged for slot in below)
    assert ledger.outstanding == 0
    assert ledger.committable() == {}


@given(order=arrivals, gone=st.sets(st.sampled_from(PARTITIONS)), data=st.data())
def test_forgetting_touches_only_the_partitions_that_went(
    order: list[Partition], gone: set[Partition], data: st.DataObject
) -> None:
    """
    A revoked partition's slots are never released, late outcomes for them are ignored, and all others go their way.
    """
    lines = Lines()
    slots = take_all(lines, order)
    early = data.draw(st.integers(0, len(slots)))
    for slot in slots[:early]:
        lines.settle(slot, an_outcome())

    dropped = lines.forget(gone)
    for slot in slots[early:]:
        lines.settle(slot, an_outcome())
    released = lines.release(1000)

    assert len([slot for slot in slots if slot.event.partition in gone]) == dropped
    assert [slot for slot in slots if slot.event.partition not in gone] == sorted(released, key=slots.index)
    assert lines.waiting == 0
