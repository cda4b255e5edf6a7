"""
Workers whose uploads take their time: how they keep their place in the group meanwhile, and how they stop.

The images come from a web server that answers when the test wants it to. The workers load side by side.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.outcome_reader import OutcomeReader
from tests.platform_side import DEADLINE_S, Published, inline, small_jpeg, upload_event
from tests.scripted_web import Answer, ScriptedWeb, answer, scripted_web
from tests.servers import eventually
from tests.worker_rig import Instruments, WorkerProcess, WorkerRig
from worker.dev.servers import KafkaAt, RedisAt

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(400)]

PARTITIONS = 2
HELD = 4
DRAIN_S = 4.0
BUSY_S = 20.0
"""What a process may take to end on a busy machine: less than the default drain, and than the images are held back."""

IMAGE_S = 1.0
SETTINGS = {
    "drains": (),
    "leaves": (),
    "gives-up": (f"flow.drain_timeout_s={DRAIN_S}",),
    # One image at a time, few uploads under way, and a group that expels whoever does not poll for 7 s.
    "waits": (
        "fetch.threads=1",
        "flow.max_in_flight=3",
        "batch.size=1",
        "kafka.publish_timeout_s=2",
        "fetch.total_timeout_s=4",
        "fetch.read_timeout_s=4",
        "kafka.max_poll_interval_s=7",
    ),
}


@dataclass(frozen=True, slots=True)
class Held:
    """
    A worker, and the server that holds back its images until ``gate`` is set.
    """

    rig: WorkerRig
    worker: WorkerProcess
    web: ScriptedWeb
    gate: threading.Event = field(default_factory=threading.Event)

    def publish(self, answers: Sequence[Answer]) -> list[Published]:
        """
        An upload for each of these answers of the server.
        """
        self.worker.until_started()
        for number, told in enumerate(answers):
            self.web.routes[f"/{number}.jpg"] = told
        return self.rig.publish(
            upload_event(f"slow-{number}", {"kind": "https", "url": self.web.url(f"/{number}.jpg", host="127.0.0.1")})
            for number in range(len(answers))
        )

    def under_way(self) -> list[Published]:
        """
        Publish as many uploads as the worker fetches at once, and return when it has asked for all of their images.
        """
        published = self.publish([Answer(self._parts_when_open(small_jpeg(number))) for number in range(HELD)])
        assert eventually(lambda: len(self.web.asked) == HELD, deadline_s=DEADLINE_S), self.worker.text()
        return published

    def _parts_when_open(self, body: bytes) -> Callable[[], Iterator[bytes]]:
        def parts() -> Iterator[bytes]:
            if self.gate.wait(DEADLINE_S):
                yield from answer(200, body).parts()

        return parts

    def slow(self, body: bytes) -> Answer:
        """
        A complete answer that takes ``IMAGE_S``.
        """

        def parts() -> Iterator[bytes]:
            self.web.stopping.wait(IMAGE_S)
            yield from answer(200, body).parts()

        return Answer(parts)


@pytest.fixture(scope="module")
def held(
    kafka: KafkaAt, redis_server: RedisAt, instruments: Instruments, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Held]]:
    """
    A worker of its own for each test, by name.
    """
    with ExitStack() as stack:
        workers = {}
        for name, sets in SETTINGS.items():
            folder: Path = tmp_path_factory.mktemp(name)
            rig = stack.enter_context(WorkerRig(kafka.bootstrap_servers, redis_server.url, instruments, folder))
            rig.configure("fetch.allow_http=true", "fetch.allow_private_addresses=true", f"fetch.threads={HELD + 1}")
            rig.configure("fetch.total_timeout_s=60", "fetch.read_timeout_s=60", *sets).create_topics(PARTITIONS)
            workers[name] = Held(rig, rig.start(name), stack.enter_context(scripted_web()))
        yield workers


def test_sigterm_finishes_what_is_under_way_and_takes_nothing_new(held: dict[str, Held]) -> None:
    """
    After SIGTERM uploads under way are judged and committed, later ones are left to others, and the exit code is 0.
    """
    one = held["drains"]
    reader = one.rig.reader()
    published = one.under_way()

    one.worker.signal(signal.SIGTERM)
    draining = one.worker.until_logged("worker.draining")
    late = one.rig.publish([upload_event(f"late-{number}", inline(small_jpeg(number))) for number in range(HELD)])
    one.gate.set()
    code = one.worker.wait(one.rig.settings.flow.drain_timeout_s)

    assert code == 0
    assert draining["in_flight"] == HELD
    assert require_answers(one, reader) == {upload.position for upload in published}
    assert one.rig.cluster.committed() == counted(published)
    assert not {upload.position for upload in late} & {outcome.answers for outcome in reader.outcomes}


def test_drain_ends_in_time_and_leaves_the_rest_uncommitted(held: dict[str, Held]) -> None:
    """
    What takes longer than the drain may is not committed, and the worker leaves with 0 all the same.
    """
    one = held["gives-up"]
    reader = one.rig.reader()
    one.under_way()

    began_s = time.monotonic()
    one.worker.signal(signal.SIGTERM)
    code = one.worker.wait()
    took_s = time.monotonic() - began_s

    assert code == 0
    assert one.worker.until_logged("worker.stopped")["abandoned"] == HELD
    assert took_s < DRAIN_S + BUSY_S
    assert one.worker.logged("thread.died") == []
    assert one.rig.cluster.committed() == {}
    assert require_answers(one, reader) == set()


def test_a_second_signal_leaves_at_once(held: dict[str, Held]) -> None:
    """
    SIGTERM while draining ends the worker at once with 143, without a commit.
    """
    one = held["leaves"]
    one.under_way()

    one.worker.signal(signal.SIGTERM)
    one.worker.until_logged("worker.draining")
    began_s = time.monotonic()
    one.worker.signal(signal.SIGTERM)
    code = one.worker.wait()

    assert code == 143
    assert time.monotonic() - began_s < BUSY_S
    assert one.rig.cluster.committed() == {}


def test_slow_uploads_cost_no_membership(held: dict[str, Held]) -> None:
    """
    Uploads that together take longer than session and poll interval leave the group as it was, member by member.

    With no room for more the partitions are paused, and the consumer goes on polling.
    """
    one = held["waits"]
    settings = one.rig.settings
    reader = one.rig.reader()
    seen: list[dict[str, set[int]]] = []
    one.worker.until_started()
    assert eventually(lambda: one.rig.cluster.shares() == [PARTITIONS], deadline_s=DEADLINE_S)
    before = one.rig.cluster.members()

    began_s = time.monotonic()
    limit_s = max(settings.kafka.session_timeout_s, settings.kafka.max_poll_interval_s)
    published = one.publish([one.slow(small_jpeg(number)) for number in range(round(limit_s / IMAGE_S) + 2)])

    def all_answered() -> bool:
        seen.append(one.rig.cluster.members())
        return reader.until_answered(published, deadline_s=0.1)

    answered = eventually(all_answered, deadline_s=DEADLINE_S)
    took_s = time.monotonic() - began_s
    code = one.worker.stop()
    metrics = one.worker.until_logged("worker.stopped")["metrics"]

    assert answered
    assert code == 0
    assert took_s > limit_s
    assert all(members == before for members in seen)
    assert metrics["pauses_total"] > 0
    # Given once, and given up once: when it left, of which the last line tells too.
    assert {'rebalances_total{kind="assigned"}': PARTITIONS, 'rebalances_total{kind="revoked"}': PARTITIONS} == {
        name: value for name, value in metrics.items() if name.startswith("rebalances_total")
    }
    assert max(line["in_flight"] for line in one.worker.logged("batch.released")) <= settings.flow.max_in_flight
    assert len(reader.outcomes) == len(published)


def counted(published: Iterable[Published]) -> dict[int, int]:
    """
    How many uploads lie in each partition that has any.
    """
    counts: dict[int, int] = {}
    for one in published:
        counts[one.position[0]] = counts.get(one.position[0], 0) + 1
    return counts


def require_answers(held: Held, reader: OutcomeReader) -> set[tuple[int, int]]:
    """
    The uploads that have outcomes, when all there is has been read.
    """
    topic = held.rig.settings.kafka.topics.verdicts

    assert reader.until_read(topic, held.rig.cluster.ends(topic))
    return {outcome.answers for outcome in reader.outcomes}
