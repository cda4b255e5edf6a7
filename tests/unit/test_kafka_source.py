"""
The source of events around kafka-python's consumer, which is a stand-in here; the real one is in ``tests/contract``.
"""

import threading
from collections.abc import Mapping, Sequence

import kafka.errors as kafka_errors
import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.future import Future
from kafka.structs import MemberState

from tests.kafka_reader import Counts
from tests.stand_in_consumer import ONE, UPLOADS, ZERO, Record, StandIn, place, record
from worker.adapters import kafka_source
from worker.adapters.kafka_source import KafkaEventSource, consumer_config
from worker.domain import Partition
from worker.errors import CannotStart, WorkerCrashed
from worker.settings.tree import KafkaSettings

SETTINGS = KafkaSettings()


@pytest.fixture
def counts() -> Counts:
    """
    What was counted.
    """
    return Counts()


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, counts: Counts) -> KafkaEventSource:
    """
    A source around a stand-in that owns partitions 0 and 1 as member-a in generation 2.
    """
    monkeypatch.setattr(kafka_source, "KafkaConsumer", StandIn)
    monkeypatch.setattr(kafka_source, "require_topics", lambda *_, **__: None)
    source = KafkaEventSource(SETTINGS, counts, client_id="test")
    stand_in = stand_in_of(source)
    assert stand_in.listener is not None
    stand_in.listener.on_partitions_assigned({ZERO, ONE})
    return source


def stand_in_of(source: KafkaEventSource) -> StandIn:
    """
    The consumer within.
    """
    consumer: StandIn = source._consumer
    return consumer


def test_what_would_lose_uploads_is_no_setting() -> None:
    """
    No auto-commit, earliest, read_committed, and no topic is made by asking for it.
    """
    config = consumer_config(SETTINGS, client_id="c", instance_id="worker-0")

    assert config["enable_auto_commit"] is False
    assert config["auto_offset_reset"] == "earliest"
    assert config["isolation_level"] == "read_committed"
    assert config["allow_auto_create_topics"] is False
    assert config["group_instance_id"] is None
    assert set(config) <= set(KafkaConsumer.DEFAULT_CONFIG)


def test_times_follow_the_settings() -> None:
    """
    Session and poll interval are the settings', and there are many heartbeats in a session.
    """
    config = consumer_config(
        KafkaSettings(session_timeout_s=9.0, max_poll_interval_s=60.0), client_id="c", instance_id=None
    )

    assert (config["session_timeout_ms"], config["max_poll_interval_ms"]) == (9_000, 60_000)
    assert config["heartbeat_interval_ms"] == 600


def test_static_membership_needs_an_id() -> None:
    """
    With one it is the group instance id, without one nothing starts.
    """
    static = KafkaSettings(static_membership=True)

    assert consumer_config(static, client_id="c", instance_id="worker-0")["group_instance_id"] == "worker-0"
    with pytest.raises(CannotStart, match=r"service\.instance_id"):
        consumer_config(static, client_id="c", instance_id=None)


def test_a_client_that_would_lose_uploads_is_refused(source: KafkaEventSource) -> None:
    """
    What the client really has is looked at, not what it was given.
    """
    stand_in_of(source).config["enable_auto_commit"] = True

    with pytest.raises(CannotStart, match="enable_auto_commit"):
        source._require_safe_offsets()


def test_a_record_becomes_an_event(source: KafkaEventSource) -> None:
    """
    All fields, the headers as a tuple; a time stamp of -1 is none.
    """
    stand_in_of(source).on_poll = [{ZERO: [record(ZERO, 4)], ONE: [record(ONE, 9, timestamp=-1)]}]

    first, second = source.poll(room=5, wait_s=0.0).events

    assert (first.partition, first.offset, first.key, first.value) == (Partition(UPLOADS, 0), 4, b"k", b"v")
    assert (first.headers, first.timestamp_ms) == ((("h", b"1"),), 5)
    assert second.timestamp_ms is None
    assert first.received_at_s > 1_700_000_000


def test_the_membership_is_the_one_whose_assignment_was_told(source: KafkaEventSource) -> None:
    """
    While a join is under way it stays the former, though kafka-python knows of the next generation already.
    """
    stand_in = stand_in_of(source)
    before = source.poll(room=1, wait_s=0.0).membership
    stand_in.place = place(3, state=MemberState.REBALANCING)
    during = source.poll(room=1, wait_s=0.0).membership

    def finish_join() -> Mapping[TopicPartition, Sequence[Record]]:
        assert stand_in.listener is not None
        stand_in.assigned.discard(ONE)
        stand_in.listener.on_partitions_revoked({ONE})
        stand_in.place = place(3)
        return {}

    stand_in.on_poll = [finish_join]
    after = source.poll(room=1, wait_s=0.0)

    assert before == during == place(2)
    assert after.membership == place(3)
    assert after.revoked == {Partition(UPLOADS, 1)}


def test_a_rebalance_is_waited_for_within_the_poll(source: KafkaEventSource) -> None:
    """
    A poll that finds the group rebalancing polls again at once, and longer; it does not wait a third time.
    """
    stand_in = stand_in_of(source)
    stand_in.place = place(2, state=MemberState.REBALANCING)
    source.poll(room=1, wait_s=0.005)
    stand_in.place = place(3)
    source.poll(room=1, wait_s=0.0)

    assert stand_in.waits == [0.0, 500.0, 0.0]


def test_a_poll_without_anything_new_asks_kafka_nothing(source: KafkaEventSource) -> None:
    """
    While no fetch is answered a wait is a wait: each poll of kafka-python costs two or three turns of its thread.
    """
    source._fetches._monotonic_s = lambda: 0.0
    for _ in range(3):
        source.poll(room=1, wait_s=0.001)

    assert [0.0] == stand_in_of(source).waits


def test_a_ring_ends_the_wait_and_asks_kafka_nothing(source: KafkaEventSource) -> None:
    """
    An outcome that is ready is not kept waiting for events: the wait hears the ring, for which there is nothing else.
    """
    source.poll(room=1, wait_s=0.0)
    source._fetches._look_s = float("inf")
    source._bell.ring()
    source.poll(room=1, wait_s=60.0)

    assert not source._bell.wait(0.0)
    assert [0.0] == stand_in_of(source).waits


def test_an_answered_fetch_is_taken_within_the_same_poll(source: KafkaEventSource) -> None:
    """
    The answer ends the wait, and its events are handed on at once; nothing else would make a look due.
    """
    stand_in, fetch = stand_in_of(source), Future()
    stand_in._fetcher._fetch_futures = [fetch]
    source.poll(room=5, wait_s=0.0)
    source._fetches._look_s = float("inf")
    stand_in.on_poll = [{ZERO: [record(ZERO, 4)]}]
    threading.Timer(0.02, fetch.success, ("records",)).start()

    assert [4] == [event.offset for event in source.poll(room=5, wait_s=60.0).events]


def test_room_that_comes_or_goes_is_told_to_kafka_at_once(source: KafkaEventSource) -> None:
    """
    Paused partitions are not found out about by waiting for them.
    """
    source._fetches._monotonic_s = lambda: 0.0
    halted = []
    for room in (1, 0, 0, 1):
        source.poll(room=room, wait_s=0.001)
        halted.append(len(stand_in_of(source).halted))

    assert ([0, 2, 2, 0], 3) == (halted, len(stand_in_of(source).waits))


def test_what_comes_without_room_is_put_back(source: KafkaEventSource) -> None:
    """
    A partition that is assigned within the poll is not paused yet: its events are read again later.
    """
    stand_in = stand_in_of(source)
    stand_in.on_poll = [{ONE: [record(ONE, 40)]}]

    assert source.poll(room=0, wait_s=0.0).events == []
    assert stand_in.sought == {ONE: 40}
    assert stand_in.halted == {ZERO, ONE}


def test_what_came_back_while_paused_is_resumed(source: KafkaEventSource) -> None:
    """
    The paused partitions are those that the consumer has paused, not those that we once paused.
    """
    stand_in = stand_in_of(source)
    source.poll(room=0, wait_s=0.0)
    stand_in.assigned = {ZERO}
    source.poll(room=0, wait_s=0.0)
    stand_in.assigned = {ZERO, ONE}
    source.poll(room=1, wait_s=0.0)

    assert stand_in.halted == set()


def test_revoked_and_lost_are_told_once_and_counted(source: KafkaEventSource, counts: Counts) -> None:
    """
    Both reach the next poll's answer; the counters tell them apart.
    """
    stand_in = stand_in_of(source)
    assert stand_in.listener is not None
    stand_in.listener.on_partitions_revoked({ZERO})
    stand_in.listener.on_partitions_lost({ONE})

    assert source.poll(room=1, wait_s=0.0).revoked == {Partition(UPLOADS, 0), Partition(UPLOADS, 1)}
    assert source.poll(room=1, wait_s=0.0).revoked == frozenset()
    kinds = {kind: counts.total("rebalances_total", kind=kind) for kind in ("assigned", "revoked", "lost")}
    assert kinds == {"assigned": 2, "revoked": 1, "lost": 1}


def test_an_expulsion_that_nobody_told_us_of_is_noticed(source: KafkaEventSource, counts: Counts) -> None:
    """
    Another member id with the old partitions: all are lost, what was read is dropped, and the group is joined afresh.
    """
    stand_in = stand_in_of(source)

    def come_back_as_another() -> Mapping[TopicPartition, Sequence[Record]]:
        stand_in.place = place(4, member="member-b")
        return {ZERO: [record(ZERO, 8)]}

    stand_in.on_poll = [come_back_as_another]
    polled = source.poll(room=5, wait_s=0.0)

    assert polled.events == []
    assert polled.revoked == {Partition(UPLOADS, 0), Partition(UPLOADS, 1)}
    assert polled.membership == place(2)
    assert stand_in.subscriptions == 2
    assert counts.total("rebalances_total", kind="lost") == 2


def test_an_expelled_member_joins_as_it_is_before_it_joins_afresh(source: KafkaEventSource) -> None:
    """
    While its join as another member is pending it only tells what is lost; a leave would wait behind that join.
    """
    stand_in = stand_in_of(source)
    stand_in.place = place(-1, member="member-b", state=MemberState.REBALANCING)
    during = source.poll(room=5, wait_s=0.0)
    subscriptions = stand_in.subscriptions
    stand_in.place = place(4, member="member-b")
    stand_in.on_poll = [{ZERO: [record(ZERO, 8)]}]
    after = source.poll(room=5, wait_s=0.0)

    assert during.revoked == {Partition(UPLOADS, 0), Partition(UPLOADS, 1)}
    assert subscriptions == 1
    assert (after.events, after.membership) == ([], place(2))
    assert stand_in.subscriptions == 2


@pytest.mark.parametrize(
    "refusal",
    [
        kafka_errors.CommitFailedError(),
        kafka_errors.RebalanceInProgressError(),
        kafka_errors.IllegalGenerationError(),
        kafka_errors.UnknownMemberIdError(),
        kafka_errors.KafkaTimeoutError(),
        kafka_errors.CoordinatorNotAvailableError(),
    ],
)
def test_a_refused_commit_is_false_and_counted(source: KafkaEventSource, counts: Counts, refusal: Exception) -> None:
    """
    A rebalance or a broker that is away is no reason to stop.
    """
    stand_in_of(source).commit_error = refusal

    assert not source.commit({Partition(UPLOADS, 0): 3})
    assert counts.total("commits_total", result="refused") == 1
    assert counts.total("commits_total", result="ok") == 0


@pytest.mark.parametrize(
    "error", [kafka_errors.FencedInstanceIdError(), kafka_errors.GroupAuthorizationFailedError("touchstone")]
)
def test_a_commit_that_can_never_go_through_ends_the_worker(source: KafkaEventSource, error: Exception) -> None:
    """
    An instance id given away, or no permission.
    """
    stand_in_of(source).commit_error = error

    with pytest.raises(WorkerCrashed, match=type(error).__name__):
        source.commit({Partition(UPLOADS, 0): 3})


def test_only_what_is_ours_is_committed(source: KafkaEventSource, counts: Counts) -> None:
    """
    The rest is left out, and makes the answer False.
    """
    assert source.commit({Partition(UPLOADS, 0): 3})
    assert not source.commit({Partition(UPLOADS, 1): 4, Partition(UPLOADS, 9): 5})
    assert stand_in_of(source).stored == {ZERO: 3, ONE: 4}
    assert counts.total("commits_total", result="ok") == 1


def test_a_broker_that_is_away_is_waited_for(source: KafkaEventSource) -> None:
    """
    What kafka-python calls retriable is nothing to stop for.
    """
    stand_in_of(source).on_poll = [kafka_errors.NodeNotReadyError("coordinator")]

    assert source.poll(room=1, wait_s=0.0).events == []


@pytest.mark.parametrize(
    "error", [kafka_errors.TopicAuthorizationFailedError({UPLOADS}), kafka_errors.CorruptRecordError("bad crc")]
)
def test_a_source_that_is_lost_ends_the_worker(source: KafkaEventSource, error: Exception) -> None:
    """
    Anything else that a poll raises is not mended by polling again.
    """
    stand_in_of(source).on_poll = [error]

    with pytest.raises(WorkerCrashed, match=UPLOADS):
        source.poll(room=1, wait_s=0.0)
