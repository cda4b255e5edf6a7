"""
The outbox around kafka-python's producer, which is a stand-in here; the real one is in ``tests/contract``.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import kafka.errors as kafka_errors
import pytest
from kafka import KafkaProducer
from kafka.producer.future import FutureProduceResult, FutureRecordMetadata
from kafka.structs import ConsumerGroupMetadata, MemberState

from tests.kafka_reader import Counts
from tests.kafka_worlds import release
from worker.adapters import kafka_coordinator, kafka_outbox
from worker.adapters.kafka_coordinator import ask_on
from worker.adapters.kafka_outbox import KafkaOutbox, is_fenced, producer_config
from worker.domain import Partition
from worker.errors import ProducerFenced, PublishFailed
from worker.ports import GroupMembership
from worker.settings.tree import KafkaSettings
from worker.stages.serialise import max_dead_letter_bytes

SETTINGS = KafkaSettings(publish_timeout_s=5.0)
SHORT = KafkaSettings(publish_timeout_s=5.0, transaction_timeout_s=0.2, transaction_interval_s=0.1)
VERDICTS = SETTINGS.topics.verdicts
UPLOADS = Partition(SETTINGS.topics.uploads, 2)
MEMBER = GroupMembership(ConsumerGroupMetadata("touchstone", 3, "member-a", None, MemberState.STABLE))


class StandIn:
    """
    As much of KafkaProducer as the outbox uses. ``calls`` is what it was asked, ``faults`` what shall raise what.
    """

    made: list["StandIn"]
    faults: dict[str, Exception]
    message_error: Exception | None
    on_commit: Callable[[], object]

    def __init__(self, **config: Any) -> None:  # noqa: ANN401 - kafka-python's arguments
        self.config = config
        self.calls: list[str] = []
        self.made.append(self)

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.faults:
            raise self.faults[name]

    def partitions_for(self, topic: str) -> set[int]:
        """
        One.
        """
        return {0}

    def init_transactions(self) -> None:
        """
        Take over the id.
        """
        self._called("init")

    def begin_transaction(self) -> None:
        """
        Begin.
        """
        self._called("begin")

    def send(self, topic: str, **message: object) -> FutureRecordMetadata:
        """
        A future that is done.
        """
        self._called("send")
        future = FutureRecordMetadata(FutureProduceResult((topic, 0)), 0, None, None, 0, 0, 0)
        return future.failure(self.message_error) if self.message_error else future.success(None)

    def send_offsets_to_transaction(self, offsets: object, place: object) -> None:
        """
        Send offsets.
        """
        self._called("offsets")

    def flush(self, timeout: float) -> None:
        """
        Wait.
        """
        self._called("flush")

    def commit_transaction(self) -> None:
        """
        Commit.
        """
        self._called("commit")
        self.on_commit()

    def abort_transaction(self) -> None:
        """
        Abort.
        """
        self._called("abort")

    def close(self, timeout: float) -> None:
        """
        Close.
        """
        self._called("close")


@pytest.fixture
def producers(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    """
    The class of the stand-in, with nothing gone wrong.
    """
    StandIn.made, StandIn.faults, StandIn.message_error = [], {}, None
    StandIn.on_commit = staticmethod(lambda: None)
    monkeypatch.setattr(kafka_outbox, "KafkaProducer", StandIn)
    monkeypatch.setattr(kafka_outbox, "require_topics", lambda *_, **__: None)
    return StandIn


def outbox(counts: Counts | None = None, settings: KafkaSettings = SETTINGS) -> KafkaOutbox:
    """
    An outbox for transactions.
    """
    return KafkaOutbox(settings, counts or Counts(), client_id="test", transactional_id="touchstone-0")


def transact(box: KafkaOutbox, membership: GroupMembership = MEMBER) -> bool:
    """
    One transaction of two messages.
    """
    return box.transact([release(VERDICTS, UPLOADS, 7), release(VERDICTS, UPLOADS, 8)], {UPLOADS: 9}, membership)


def test_what_would_lose_or_repeat_outcomes_is_no_setting() -> None:
    """
    All replicas, idempotent, no topic made by accident, and room for the largest dead letter.
    """
    config = producer_config(SETTINGS, client_id="c", transactional_id=None)

    assert (config["acks"], config["enable_idempotence"], config["allow_auto_create_topics"]) == ("all", True, False)
    assert config["max_request_size"] >= max_dead_letter_bytes()
    assert config["delivery_timeout_ms"] == 5_000
    assert config["request_timeout_ms"] + config["linger_ms"] <= config["delivery_timeout_ms"]
    assert set(config) <= set(KafkaProducer.DEFAULT_CONFIG)


def test_only_transactions_retry_at_once() -> None:
    """
    A short pause speeds transactions up; for publishing it would only hammer a broker that is away.
    """
    once = producer_config(SETTINGS, client_id="c", transactional_id="t")
    plain = producer_config(SETTINGS, client_id="c", transactional_id=None)

    assert (once["retry_backoff_ms"], plain["retry_backoff_ms"]) == (5, 100)
    assert (once["transactional_id"], once["transaction_timeout_ms"]) == ("t", 15_000)


def test_a_transaction_is_committed_after_its_messages(producers: type[StandIn]) -> None:
    """
    Begin, messages, offsets, wait for the messages, commit.
    """
    counts = Counts()

    assert transact(outbox(counts))
    assert producers.made[0].calls == ["init", "begin", "send", "send", "offsets", "flush", "commit"]
    assert counts.total("commits_total", result="ok") == 1


def test_a_message_that_ran_out_of_time_is_not_committed_around(producers: type[StandIn]) -> None:
    """
    kafka-python would commit the rest of the transaction; we abort it, naming the upload.
    """
    producers.message_error = kafka_errors.KafkaTimeoutError("expired")

    with pytest.raises(PublishFailed, match=r"-2 offset 7 was not acknowledged: KafkaTimeoutError"):
        transact(outbox())
    assert "commit" not in producers.made[0].calls
    assert producers.made[0].calls[-1] == "abort"


def test_after_a_refusal_comes_a_new_producer(producers: type[StandIn]) -> None:
    """
    Aborted and False; the next transaction does not begin with what the old producer still holds.
    """
    counts = Counts()
    producers.faults = {"offsets": kafka_errors.CommitFailedError("stale")}
    box = outbox(counts)
    refused = transact(box)
    producers.faults = {}

    assert not refused
    assert transact(box)
    first, second = producers.made
    assert first.calls[-2:] == ["abort", "close"]
    assert second.calls == ["init", "begin", "send", "send", "offsets", "flush", "commit"]
    assert (counts.total("commits_total", result="ok"), counts.total("commits_total", result="refused")) == (1, 1)


@pytest.mark.parametrize(
    "nobody",
    [
        ConsumerGroupMetadata("touchstone", -1, "", None, MemberState.UNJOINED),
        ConsumerGroupMetadata("touchstone", -1, "member-a", None, MemberState.UNJOINED),
        ConsumerGroupMetadata("touchstone", 3, "", None, MemberState.UNJOINED),
    ],
)
def test_who_is_no_member_is_refused_without_asking(producers: type[StandIn], nobody: ConsumerGroupMetadata) -> None:
    """
    The broker would take these offsets.
    """
    box = outbox()

    assert not transact(box, GroupMembership(nobody))
    assert producers.made[0].calls == ["init"]


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


def test_any_other_failure_aborts(producers: type[StandIn]) -> None:
    """
    Aborted, and told with what Kafka said.
    """
    producers.faults = {"offsets": kafka_errors.GroupAuthorizationFailedError("touchstone")}

    with pytest.raises(PublishFailed, match=r"GroupAuthorizationFailedError.*grant this user"):
        transact(outbox())
    assert producers.made[0].calls[-1] == "abort"


def test_a_transaction_has_an_end(producers: type[StandIn]) -> None:
    """
    kafka-python waits for a broker without end; we give up after publish_timeout_s.
    """
    released = threading.Event()
    producers.on_commit = staticmethod(lambda: released.wait(30))
    box = outbox(settings=KafkaSettings(publish_timeout_s=0.2))

    with pytest.raises(PublishFailed, match=r"within kafka\.publish_timeout_s \(0\.2 s\)"):
        transact(box)
    released.set()


def test_a_programming_error_is_not_hidden(producers: type[StandIn]) -> None:
    """
    What is no failure of Kafka comes out as it is, from whichever thread.
    """
    producers.faults = {"send": TypeError("headers")}

    with pytest.raises(TypeError, match="headers"):
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
