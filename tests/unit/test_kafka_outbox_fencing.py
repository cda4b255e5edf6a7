"""
Whose transactional id it is: who is fenced, who goes on after a transaction that outlived its time, who is a member.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import kafka.errors as kafka_errors
import pytest
from kafka.structs import ConsumerGroupMetadata, MemberState

from tests.kafka_worlds import release
from tests.stand_in_producer import SETTINGS, UPLOADS, VERDICTS, StandIn, outbox, stand_ins, transact
from worker.adapters import kafka_coordinator, kafka_outbox
from worker.adapters.kafka_coordinator import ask_on
from worker.adapters.kafka_outbox import KafkaOutbox, is_fenced
from worker.domain import Partition
from worker.errors import ProducerFenced
from worker.ports import GroupMembership
from worker.settings.tree import KafkaSettings

SHORT = KafkaSettings(publish_timeout_s=60.0, transaction_timeout_s=0.2, transaction_interval_s=0.1)


@pytest.fixture
def producers(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    """
    The class of the stand-in, with nothing gone wrong.
    """
    return stand_ins(monkeypatch)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("begin", kafka_errors.KafkaError("we are in an error state: [Error 90] ProducerFencedError")),
        ("offsets", kafka_errors.ProducerFencedError()),
        ("commit", kafka_errors.InvalidProducerEpochError()),
        ("send", kafka_errors.KafkaError("failed with errors", kafka_errors.ProducerFencedError())),
    ],
)
def test_being_fenced_is_told_as_such(producers: type[StandIn], call: str, error: Exception) -> None:
    """
    Wherever kafka-python finds out, and however it says so.
    """
    producers.faults = {call: error}

    with pytest.raises(ProducerFenced, match=r"touchstone-0.*service\.instance_id"):
        transact(outbox())


@pytest.mark.parametrize(("stored", "committed"), [({UPLOADS: 9}, True), ({UPLOADS: 7}, False), ({}, False)])
def test_a_transaction_that_outlived_its_time_is_looked_up(
    producers: type[StandIn], monkeypatch: pytest.MonkeyPatch, stored: Mapping[Partition, int], committed: bool
) -> None:
    """
    The coordinator has ended it and fences us as it would for another worker: the group's offsets say how it ended.

    Either way a new producer goes on, and nobody is told to give each worker an id of its own.
    """
    asked: list[tuple[object, ...]] = []

    def stored_offsets(_settings: object, at: Sequence[Partition], **told: str) -> Mapping[Partition, int]:
        asked.append((*at, told["group_id"]))
        return stored

    monkeypatch.setattr(kafka_outbox, "stored_offsets", stored_offsets)
    monkeypatch.setattr(kafka_outbox, "is_member", lambda _settings, place: place.member_id == "member-a")
    producers.on_commit = staticmethod(fenced_late)
    box = outbox(settings=SHORT)
    found = transact(box, membership_in("a-group"))
    producers.on_commit = staticmethod(lambda: None)

    assert committed == found
    assert [(UPLOADS, "a-group")] == asked
    assert transact(box)
    first, second = producers.made
    assert first.calls[-2:] == ["commit", "close"]
    assert second.calls == ["init", "begin", "send", "send", "offsets", "flush", "commit"]


@pytest.mark.parametrize(
    ("place", "offsets"),
    [
        pytest.param(ConsumerGroupMetadata("a-run", -1, "", None), {UPLOADS: 9}, id="a run, which is in no group"),
        pytest.param(ConsumerGroupMetadata("a-group", 3, "member-b", None), {UPLOADS: 9}, id="no member any more"),
        pytest.param(ConsumerGroupMetadata("a-group", 3, "member-a", None), {}, id="no offsets that would tell"),
    ],
)
def test_who_has_lost_its_id_for_good_does_not_take_it_back(
    producers: type[StandIn],
    monkeypatch: pytest.MonkeyPatch,
    place: ConsumerGroupMetadata,
    offsets: Mapping[Partition, int],
) -> None:
    """
    However late it comes, and whatever is stored: the id is another's now, who would be ended by it.
    """
    monkeypatch.setattr(kafka_outbox, "stored_offsets", lambda *_, **__: {UPLOADS: 1_000_000})
    monkeypatch.setattr(kafka_outbox, "is_member", lambda _settings, place: place.member_id == "member-a")
    monkeypatch.setattr(KafkaOutbox, "_may_commit", lambda *_: True)
    producers.on_commit = staticmethod(fenced_late)
    box = outbox(settings=SHORT)
    with pytest.raises(ProducerFenced):
        box.transact([release(VERDICTS, UPLOADS, 8)], offsets, GroupMembership(place))

    assert 1 == len(producers.made)


def fenced_late() -> None:
    """
    After the time of a transaction with ``SHORT``.
    """
    threading.Event().wait(0.2)
    raise kafka_errors.ProducerFencedError


def membership_in(group_id: str) -> GroupMembership:
    """
    A member's.
    """
    return GroupMembership(ConsumerGroupMetadata(group_id, 3, "member-a", None, MemberState.STABLE))


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        pytest.param([("a", "b")], True, id="a member"),
        pytest.param([("b",)], False, id="expelled"),
        pytest.param([None, ("a",)], True, id="a coordinator that has just taken over"),
        pytest.param(["GroupIdNotFoundError"], False, id="no group"),
    ],
)
def test_the_group_says_who_is_in_it(
    monkeypatch: pytest.MonkeyPatch, answers: list[tuple[str, ...] | str | None], found: bool
) -> None:
    """
    Asked until the coordinator knows.
    """

    def described(groups: list[str]) -> dict[str, dict[str, Any]]:
        answer = answers.pop(0)
        if isinstance(answer, tuple):
            return {groups[0]: {"error": None, "members": [{"member_id": one} for one in answer]}}
        return {groups[0]: {"error": answer or "CoordinatorLoadInProgressError", "members": []}}

    admin = SimpleNamespace(describe_groups=described)
    monkeypatch.setattr(kafka_coordinator, "admin_client", lambda _settings: nullcontext(admin))

    assert found == kafka_coordinator.is_member(SETTINGS, ConsumerGroupMetadata("a-group", 3, "a", None))
    assert [] == answers


def test_a_request_whose_coordinator_is_gone_is_sent_again() -> None:
    """
    kafka-python's sender puts a request back that was not ready to be sent, and drops one whose connection raised.
    """

    def refused(node_id: str, timeout_ms: float) -> bool:
        raise kafka_errors.KafkaConnectionError(f"{node_id} not ready after {timeout_ms} ms")

    client = SimpleNamespace(await_ready=refused)
    ask_on(SimpleNamespace(_sender=SimpleNamespace(_client=client)))
    after_a_refusal = client.await_ready("coordinator-2", timeout_ms=10)
    client = SimpleNamespace(await_ready=lambda _node_id, timeout_ms: timeout_ms == 10)
    ask_on(SimpleNamespace(_sender=SimpleNamespace(_client=client)))

    assert not after_a_refusal
    assert client.await_ready("coordinator-2", timeout_ms=10)


def test_an_abort_may_be_what_tells(producers: type[StandIn]) -> None:
    """
    A transaction that failed for one reason, and whose abort fails because we are fenced.
    """
    producers.faults = {
        "offsets": kafka_errors.KafkaError("odd"),
        "abort": kafka_errors.ProducerFencedError(),
    }

    with pytest.raises(ProducerFenced):
        transact(outbox())


@pytest.mark.parametrize(
    ("error", "fenced"),
    [
        (kafka_errors.ProducerFencedError(), True),
        (kafka_errors.InvalidProducerEpochError(), True),
        (kafka_errors.CommitFailedError(), False),
        (kafka_errors.KafkaTimeoutError("late"), False),
    ],
)
def test_fencing_is_told_from_the_rest(error: Exception, fenced: bool) -> None:
    """
    By class, or by the text in which kafka-python repeats it.
    """
    assert is_fenced(error) == fenced
    assert is_fenced(kafka_errors.KafkaError(f"error state: {error!r}")) == isinstance(
        error, kafka_errors.ProducerFencedError
    )
