"""
The outbox around kafka-python's producer, which is a stand-in here; the real one is in ``tests/contract``.
"""

import threading

import kafka.errors as kafka_errors
import pytest
from kafka import KafkaProducer
from kafka.structs import ConsumerGroupMetadata, MemberState

from tests.kafka_reader import Counts
from tests.stand_in_producer import SETTINGS, StandIn, outbox, stand_ins, transact
from worker.adapters.kafka_outbox import producer_config
from worker.errors import PublishFailed
from worker.ports import GroupMembership
from worker.settings.tree import KafkaSettings
from worker.stages.serialise import max_dead_letter_bytes


@pytest.fixture
def producers(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    """
    The class of the stand-in, with nothing gone wrong.
    """
    return stand_ins(monkeypatch)


def test_what_would_lose_or_repeat_outcomes_is_no_setting() -> None:
    """
    All replicas, idempotent, no topic made by accident, and room for the largest dead letter.
    """
    config = producer_config(SETTINGS, client_id="c", transactional_id=None)

    assert (config["acks"], config["enable_idempotence"], config["allow_auto_create_topics"]) == ("all", True, False)
    assert config["max_request_size"] >= max_dead_letter_bytes()
    assert config["delivery_timeout_ms"] == 60_000
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
