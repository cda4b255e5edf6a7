"""
Retry topics on a real Kafka: put off and tried again, never early and never lost, and mended by a redrive at the end.

The images come from a web server that fails as long as the test wants.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaProducer

from schemas.retry import RetryMarks, read_marks, without_marks, write_marks
from tests.command_line import command_line
from tests.kafka_worlds import RealWorld, poll_until
from tests.platform_side import DEADLINE_S
from tests.retry_rig import MendableWeb, bare, enveloped, event_id_of, mendable_web, retrying, waiting
from tests.servers import eventually
from tests.worker_rig import WorkerRig
from worker.adapters.kafka_source import KafkaEventSource
from worker.adapters.kafka_waits import RetryWaits
from worker.adapters.system_clock import SystemClock
from worker.dev.servers import KafkaAt
from worker.domain import Partition

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(300)]

CLOCK = SystemClock()


class HeldClock(SystemClock):
    """
    A wall clock that stands still while ``held_at_s`` is set: nothing becomes due, however long a test takes.
    """

    held_at_s: float | None = None

    def wall_s(self) -> float:
        """
        Where it stands, or the system's time.
        """
        return super().wall_s() if self.held_at_s is None else self.held_at_s


@pytest.fixture
def web() -> Iterator[MendableWeb]:
    """
    A server of images.
    """
    with mendable_web() as web:
        yield web


@pytest.fixture
def world(kafka: KafkaAt, topic_name: str) -> Iterator[RealWorld]:
    """
    Topics and a group of their own, with one retry topic of two partitions.
    """
    with RealWorld(kafka.bootstrap_servers, topic_name) as world:
        world.admin.create_topics(
            {f"{topic_name}-again": {"num_partitions": 2, "replication_factor": 1}}, wait_for_metadata=True
        )
        yield world


def put_off(world: RealWorld, number: int, *in_s: float) -> float:
    """
    Records of a partition of the retry topic that may be tried in so many seconds; from when on that is.
    """
    now_s = CLOCK.wall_s()
    with closing(KafkaProducer(**world.client, acks="all")) as producer:
        for at, ahead_s in enumerate(in_s):
            marks = RetryMarks(world.uploads, 3, at, 1, 1, round(now_s * 1000), round((now_s + ahead_s) * 1000))
            producer.send(
                f"{world.name}-again", value=f"{at}".encode(), headers=list(write_marks(marks)), partition=number
            ).get(DEADLINE_S)
    return now_s


def source_of(world: RealWorld, client_id: str, clock: SystemClock = CLOCK) -> KafkaEventSource:
    """
    A member of the world's group that reads its retry topic too.
    """
    waits = RetryWaits([f"{world.name}-again"], clock, delays_s=(30.0,))
    return KafkaEventSource(world.settings, world.counts, client_id=client_id, retries=waits)


def test_a_partition_waits_and_the_others_go_on(world: RealWorld) -> None:
    """
    Nothing is read before its time, what lies behind it waits with it, and uploads and other partitions do not.
    """
    clock = HeldClock()
    with closing(source_of(world, "one", clock)) as source:
        began_s = put_off(world, 0, 0.0, 2.0, 0.0)
        put_off(world, 1, 0.0)
        world.upload(1, b"upload")
        clock.held_at_s = began_s + 1.0
        early = poll_until(source, 3)
        clock.held_at_s = None
        uncommitted = source.commit({Partition(f"{world.name}-again", 0): 1})
        late = poll_until(source, 2)
        arrived_s = CLOCK.wall_s()

    assert sorted(event.value or b"" for event in early) == [b"0", b"0", b"upload"]
    assert [event.value for event in late] == [b"1", b"2"]
    assert arrived_s >= began_s + 2.0
    assert late[0].first_place == (Partition(world.uploads, 3), 1)
    assert uncommitted


def test_who_comes_next_waits_for_the_same_record(world: RealWorld) -> None:
    """
    A member that takes over while a record waits finds it where it lay, and not before its time.
    """
    began_s = put_off(world, 0, 3.0)
    clock = HeldClock()
    clock.held_at_s = began_s
    with closing(source_of(world, "one", clock)) as source:
        # Until it has seen the record: it lags behind by it, and holds it back.
        held = eventually(
            lambda: (
                not source.poll(room=5, wait_s=0.05).events
                and source.standing().lag.get(Partition(f"{world.name}-again", 0)) == 1
            ),
            deadline_s=DEADLINE_S,
        )
    with closing(source_of(world, "two")) as heir:
        [event] = poll_until(heir, 1)
        arrived_s = CLOCK.wall_s()

    assert held
    assert (event.value, event.offset) == (b"0", 0)
    assert arrived_s >= began_s + 3.0


def test_a_store_that_recovers_costs_a_delay_and_no_verdict(
    new_rig: Callable[..., WorkerRig],
    web: MendableWeb,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """
    What fails once or twice is decided by a later try; what always fails gets a letter, and is decided once redriven.
    """
    rig = retrying(new_rig().configure("kafka.delivery=exactly_once"), 0.3, 0.9, partitions=2)
    worker = rig.start("one")
    worker.until_started()
    reader = rig.reader(isolation_level="read_committed")
    topics = rig.settings.kafka.topics
    recovers = rig.publish([enveloped(web.image(1, failures=1), "once"), bare(web.image(2, failures=2), "twice")])
    hopeless = rig.publish([enveloped(web.image(3, failures=99), "never"), bare(web.image(4, failures=99), "nor-bare")])

    assert reader.until_answered([*recovers, *hopeless]), worker.text()
    assert reader.until(lambda: len(reader.outcomes) == 6), worker.text()
    first = list(reader.outcomes)
    put_off_first = {(record.key, record.value) for record in waiting(rig, 0)}

    web.mend()
    monkeypatch.chdir(tmp_path)
    dlq = command_line(monkeypatch, capsys, "dlq", last=[word for one in rig.sets for word in ("--set", one)])
    redriven = dlq("redrive", "--yes", "--json", "--code", "FETCH_UPSTREAM")
    assert reader.until(lambda: len(reader.outcomes) == 8), worker.text()
    again = [record for record in waiting(rig, 0) if read_marks(record.headers).attempts == 0]
    assert worker.stop() == 0

    for published in recovers:
        assert reader.verdict_of(published)["outcome"]["status"] != "failed"
    letters = [outcome for outcome in first if outcome.topic == topics.dead_letters]
    assert {one.answers for one in letters} == {one.position for one in hopeless}
    assert {one.data["event_id"] for one in letters} == {event_id_of(rig, one) for one in hopeless}
    assert redriven.json["sent"] == len(hopeless)
    mended = reader.outcomes[6:]
    assert {one.data["input"]["event_id"] for one in mended} == {event_id_of(rig, one) for one in hopeless}
    assert all(one.data["outcome"]["status"] != "failed" for one in mended)
    assert {(one.key, one.value, without_marks(one.headers)) for one in again} == {
        (one.event.key, one.event.value, one.event.headers) for one in hopeless
    }
    assert put_off_first == {(one.event.key, one.event.value) for one in [*recovers, *hopeless]}
    for path, delays_s in (("/1.jpg", [0.3]), ("/2.jpg", [0.3, 0.9]), ("/3.jpg", [0.3, 0.9])):
        asked_s = web.asked_s[path]
        assert all(later - sooner >= wait for sooner, later, wait in zip(asked_s, asked_s[1:], delays_s, strict=False))


def test_a_killed_worker_loses_nothing_that_waits(new_rig: Callable[..., WorkerRig], web: MendableWeb) -> None:
    """
    Uploads wait in a retry topic while their worker is killed: the other one tries each of them, and none early.
    """
    rig = retrying(new_rig(), 14.0, partitions=4)
    workers = [rig.start("one"), rig.start("two")]
    for worker in workers:
        worker.until_started()
    assert eventually(lambda: len(rig.cluster.members()) == 2, deadline_s=DEADLINE_S), rig.text()
    reader = rig.reader()
    published = rig.publish([enveloped(web.image(number, failures=1), f"put-off-{number}") for number in range(24)])
    assert eventually(lambda: len(waiting(rig, 0)) >= len(published), deadline_s=DEADLINE_S), rig.text()
    # What is not committed is read again from the uploads topic, which is no retry.
    assert eventually(lambda: sum(rig.cluster.committed().values()) == len(published), deadline_s=DEADLINE_S), (
        rig.text()
    )
    records = waiting(rig, 0)
    tried_early = [path for path, asked_s in web.asked_s.items() if len(asked_s) > 1]

    workers[0].signal(signal.SIGKILL)
    assert reader.until_answered(published), rig.text()

    due_s = {record.key: read_marks(record.headers).not_before_ms / 1000 for record in records}
    assert tried_early == []
    for number, one in enumerate(published):
        assert reader.verdict_of(one)["outcome"]["status"] != "failed"
        # All but the first asking, which failed, come of the retry topic.
        assert min(web.asked_s[f"/{number}.jpg"][1:]) >= due_s[one.event.key]
    assert workers[1].stop() == 0
