"""
What is mended of kafka-python's group membership, each by itself; with a real group in ``test_kafka_rebalances.py``.
"""

from types import SimpleNamespace

import pytest
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment
from kafka.structs import MemberState

from tests.stand_in_consumer import ONE, UPLOADS, ZERO, place
from worker.adapters.kafka_group import OwnedNowAssignor, forget_offset_fetches, remember_join


def test_a_member_claims_what_it_owns_now() -> None:
    """
    Joining after a loss, kafka-python's own assignor claims what it was given last; ours what is owned.
    """
    owned = {ZERO, ONE}
    ours, theirs = OwnedNowAssignor(lambda: owned), CooperativeStickyAssignor()
    given = ConsumerProtocolAssignment(1, [(UPLOADS, [0, 1])], b"")
    for assignor in (ours, theirs):
        assignor.on_assignment(given, 2)
    owned.clear()

    assert [list(claim.partitions) for claim in theirs.metadata({UPLOADS}).owned_partitions] == [[0, 1]]
    assert list(ours.metadata({UPLOADS}).owned_partitions) == []
    owned.add(ONE)
    assert [list(claim.partitions) for claim in ours.metadata({UPLOADS}).owned_partitions] == [[1]]


def test_answers_that_nobody_waits_for_are_dropped() -> None:
    """
    Where kafka-python keeps them; where it does not, nothing happens.
    """
    pending = {frozenset({ZERO}): "an old answer"}
    forget_offset_fetches(SimpleNamespace(_coordinator=SimpleNamespace(_offset_fetch_futures=pending)))
    forget_offset_fetches(SimpleNamespace())

    assert pending == {}


@pytest.mark.parametrize(
    ("state", "needed", "asked"),
    [
        (MemberState.REBALANCING, False, 1),
        (MemberState.REBALANCING, True, 0),
        (MemberState.STABLE, False, 0),
        (MemberState.UNJOINED, False, 0),
    ],
)
def test_only_a_forgotten_join_is_remembered(state: str, needed: bool, asked: int) -> None:
    """
    Rebalancing, and kafka-python thinks that nothing is to be done: only then.
    """
    requests: list[None] = []
    coordinator = SimpleNamespace(need_rejoin=lambda: needed, request_rejoin=lambda: requests.append(None))
    remember_join(SimpleNamespace(_coordinator=coordinator, group_metadata=lambda: place(2, state=state)))

    assert len(requests) == asked
