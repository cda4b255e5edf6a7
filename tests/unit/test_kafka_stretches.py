"""
Reading a topic to its end, when Kafka does not play along. Real topics: ``tests/integration/test_diff.py``.
"""

import time
from collections.abc import Mapping

import kafka.errors as kafka_errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition

from tests.assigned_consumer import TOPIC, AssignedConsumer, Log
from worker.adapters import kafka_range_source, kafka_stretches
from worker.adapters.kafka_range_source import KafkaRangeSource
from worker.adapters.kafka_stretches import StretchReader, stretches_between
from worker.domain import Partition
from worker.errors import ArchiveUnavailable, CannotStart, WorkerCrashed
from worker.flow.replay_run import Bound, Stretch
from worker.settings.tree import KafkaSettings

HERE = TopicPartition(TOPIC, 0)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Between two polls of a broker that is away nobody waits here.
    """
    monkeypatch.setattr(kafka_stretches, "_WAIT_S", 0.0)


def read(consumer: AssignedConsumer, end: int, *, silence_s: float = 60.0) -> list[int]:
    """
    The offsets that were read of partition 0.
    """
    reader = StretchReader(consumer, TOPIC, silence_s=silence_s)
    reader.begin({0: Stretch(0, end)})
    return [record.offset for records in reader.batches(lambda _done, _of: None) for record in records]


def a_log(*offsets: int, end: int) -> dict[int, Log]:
    """
    One partition.
    """
    return {0: Log(offsets, end)}


def a_source(monkeypatch: pytest.MonkeyPatch, consumer: AssignedConsumer) -> KafkaRangeSource:
    """
    A replay's source around this consumer.
    """
    monkeypatch.setattr(kafka_range_source, "KafkaConsumer", lambda **_config: consumer)
    monkeypatch.setattr(kafka_range_source, "require_topics", lambda *_: None)
    return KafkaRangeSource(KafkaSettings(), TOPIC, group_id="run", client_id="test")


def test_records_beyond_the_end_are_left_out() -> None:
    """
    Though they come with the same answer.
    """
    assert [0, 1, 2] == read(AssignedConsumer(a_log(0, 1, 2, 3, 4, end=5)), 3)


def test_offsets_that_hold_no_record_end_the_reading() -> None:
    """
    Behind the last record may lie the marks of transactions: the position tells that the end is reached.
    """
    assert [0, 1] == read(AssignedConsumer(a_log(0, 1, end=5)), 5)


def test_a_broker_that_is_away_for_a_moment_is_waited_for() -> None:
    """
    What kafka-python calls retriable costs nothing but time.
    """
    consumer = AssignedConsumer(a_log(0, 1, end=2), errors=[kafka_errors.NodeNotReadyError()])

    assert [0, 1] == read(consumer, 2)


def test_what_no_retry_mends_ends_the_reading() -> None:
    """
    With what to do about it.
    """
    consumer = AssignedConsumer(a_log(0, end=2), errors=[kafka_errors.TopicAuthorizationFailedError()])

    with pytest.raises(WorkerCrashed, match="grant this user Read"):
        read(consumer, 2)


@pytest.mark.parametrize("unknown", [False, True], ids=["stands still", "is not known"])
def test_a_silence_ends_the_reading(unknown: bool) -> None:
    """
    A topic that gives nothing, though its end is not reached, is not waited for without end; the place is told.
    """
    consumer = AssignedConsumer(a_log(0, end=2), stuck_at=1)
    reader = StretchReader(consumer, TOPIC, silence_s=0.0, go_on="go on with --run-id")
    reader.begin({0: Stretch(0, 2)})
    assert [0] == [record.offset for record in reader.poll(limit=10, wait_s=0.0)]
    consumer.position_unknown = unknown

    with pytest.raises(WorkerCrashed, match=r"before the end of partition 0 at offset 1; .* go on with --run-id"):
        reader.poll(limit=10, wait_s=0.0)


def test_only_the_time_of_asking_is_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whoever works on a batch for an hour finds a broker that has kept nobody waiting.
    """
    now_s = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    consumer = AssignedConsumer(a_log(0, 1, end=2), stuck_at=1)
    reader = StretchReader(consumer, TOPIC, silence_s=60.0)
    reader.begin({0: Stretch(0, 2)})
    first = reader.poll(limit=10, wait_s=0.5)
    now_s[0] += 3600.0
    waited = reader.poll(limit=10, wait_s=0.5)
    consumer.stuck_at = None
    second = reader.poll(limit=10, wait_s=0.5)

    assert [[0], [], [1]] == [[record.offset for record in records] for records in (first, waited, second)]
    assert reader.finished


def test_the_reader_says_which_error_it_is() -> None:
    """
    What is a crash to one is an archive that cannot be read to another.
    """
    consumer = AssignedConsumer(a_log(end=2), errors=[kafka_errors.TopicAuthorizationFailedError()])
    reader = StretchReader(consumer, TOPIC, failure=ArchiveUnavailable)
    reader.begin({0: Stretch(0, 2)})

    with pytest.raises(ArchiveUnavailable, match=TOPIC):
        reader.poll(limit=1, wait_s=0.0)


@pytest.mark.parametrize(
    "error", [kafka_errors.OffsetOutOfRangeError({HERE: 3}), kafka_errors.NoOffsetForPartitionError(HERE)]
)
def test_what_retention_has_removed_is_told(error: Exception) -> None:
    """
    A range that is no longer whole is not read as if it were.
    """
    with pytest.raises(WorkerCrashed, match="retention was quicker"):
        read(AssignedConsumer(a_log(0, end=2), errors=[error]), 2)


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        (Bound("beginning"), Bound("end"), {0: Stretch(2, 9), 1: Stretch(0, 3)}),
        (Bound("offset", 4), Bound("offset", 7), {0: Stretch(4, 7), 1: Stretch(3, 3)}),
        (Bound("time", 500), Bound("end"), {0: Stretch(6, 9), 1: Stretch(3, 3)}),
        (Bound("offset", 8), Bound("time", 500), {0: Stretch(8, 8), 1: Stretch(3, 3)}),
    ],
    ids=["everything", "offsets", "since a time", "nothing"],
)
def test_bounds_become_offsets(since: Bound, until: Bound, found: Mapping[int, Stretch]) -> None:
    """
    Within what is there; nothing as young as a time means the end, and an end before its start means nothing.
    """
    logs = {0: Log((2, 4, 6), 9, first=2, times_ms=(100, 300, 500)), 1: Log((0, 1), 3, times_ms=(100, 200))}

    assert found == stretches_between(AssignedConsumer(logs), TOPIC, since, until)


def test_a_topic_without_partitions_is_no_empty_topic() -> None:
    """
    Where no partition is known nothing can be said of what lies in the topic.
    """
    with pytest.raises(CannotStart, match="none of its partitions"):
        stretches_between(AssignedConsumer({}), TOPIC, Bound("beginning"), Bound("end"))


@given(
    logs=st.dictionaries(
        st.integers(0, 4),
        st.lists(st.booleans(), max_size=40).map(
            lambda held: Log(tuple(offset for offset, holds in enumerate(held) if holds), len(held))
        ),
        min_size=1,
    ),
    cuts=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=5, max_size=5),
    limit=st.integers(1, 7),
)
def test_all_that_lies_in_the_stretches_is_read_once(
    logs: dict[int, Log], cuts: list[tuple[int, int]], limit: int
) -> None:
    """
    Whatever the partitions hold and however little comes at once: each record once, in order, and no other.
    """
    stretches = {
        number: Stretch(min(*cuts[number], log.end), min(max(cuts[number]), log.end)) for number, log in logs.items()
    }
    reader = StretchReader(AssignedConsumer(logs), TOPIC)
    reader.begin(stretches)
    found: dict[int, list[int]] = {number: [] for number in logs}
    done = [reader.done]
    while not reader.finished:
        for record in reader.poll(limit=limit, wait_s=0.0):
            found[record.partition].append(record.offset)
        done.append(reader.done)

    assert found == {
        number: [offset for offset in log.offsets if stretches[number].start <= offset < stretches[number].end]
        for number, log in logs.items()
    }
    assert sorted(done) == done
    assert (0, reader.total) == (done[0], done[-1])


def test_a_replay_without_room_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No group asks to be kept alive; with room again it reads on to the end, and takes no more than there is room for.
    """
    consumer = AssignedConsumer(a_log(0, 1, 2, end=3))
    source = a_source(monkeypatch, consumer)
    before = source.exhausted
    source.read({0: Stretch(0, 3)})
    events = [[event.offset for event in source.poll(room=room, wait_s=0.0).events] for room in (0, 2, 0, 5)]

    assert before
    assert [[], [0, 1], [], [2]] == events
    assert [2, 5] == [room for _, room in consumer.asked]
    assert source.exhausted


def test_progress_that_kafka_does_not_take_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It is told as not stored, and stored the next time; what no retry mends ends the replay.
    """
    away, forbidden = kafka_errors.KafkaTimeoutError(), kafka_errors.GroupAuthorizationFailedError("run")
    consumer = AssignedConsumer(a_log(end=3), errors=[away])
    source = a_source(monkeypatch, consumer)
    taken = [source.commit({Partition(TOPIC, 0): 2}) for _ in range(2)]
    consumer.errors = [forbidden]

    assert [False, True] == taken
    assert [{HERE: 2}] == consumer.commits
    with pytest.raises(WorkerCrashed, match="to commit offsets of verdicts"):
        source.commit({Partition(TOPIC, 0): 3})
