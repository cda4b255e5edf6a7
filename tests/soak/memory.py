"""
Memory over many uploads and many loads of a bank: level, or somebody keeps what he should let go.

One worker, whose banks are releases of one another, and uploads of which most are recalled. Nothing is harmed here.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from tests.outcome_reader import CommitWatch, OutcomeReader
from tests.platform_side import Cluster, Position, inline, upload_event
from tests.release_rig import FromReleases, enlarged, following_rig, publish_versions, resident_bytes
from tests.servers import eventually
from tests.soak.fleet import KEYS, PARTITIONS, PATIENCE_S, PICTURES, picture
from tests.soak.scale import Scale
from tests.soak.tally import Tally
from tests.worker_rig import Instruments, WorkerProcess, WorkerRig
from worker.bank.releases import Issuer, Releases
from worker.dev.kafka_server import EmbeddedKafka
from worker.dev.redis_server import EmbeddedRedis
from worker.dev.servers import KafkaAt, RedisAt

RELEASES = 3
REFERENCES = 2_000
ALLOWED = 0.05
FIFTHS = 5
"""Of the levels the first fifth is forgotten, the second is the plateau, and the last is held against it."""

BY = Issuer("a soak")


class LeanReader(OutcomeReader):
    """
    Keeps which uploads have an outcome, and not the outcomes.
    """

    def __init__(self, bootstrap_servers: str, topics: Sequence[str], *, isolation_level: str) -> None:
        self.terminal: set[Position] = set()
        self.duplicates = 0
        super().__init__(bootstrap_servers, topics, isolation_level=isolation_level)

    def _keep(self, message: Any) -> None:  # noqa: ANN401 - librdkafka's message
        super()._keep(message)
        answers = self.outcomes.pop().answers
        self.duplicates += answers in self.terminal
        self.terminal.add(answers)


def level(instruments: Instruments, folder: Path, scale: Scale) -> Iterator[Tally]:
    """
    So many uploads and so many loads of a bank; what is resident at the end is what was resident early on.
    """
    began_s = time.monotonic()
    place = folder / f"releases-{scale.memory_loads}"
    place.mkdir()
    releases = publish_versions(enlarged(instruments.bank, place / "large", more=REFERENCES), place, RELEASES)
    releases.activate("1", BY)
    with EmbeddedKafka() as kafka, EmbeddedRedis() as redis:
        servers = (
            KafkaAt(kafka.bootstrap_servers, "embedded", kafka.version),
            RedisAt(redis.url, "embedded", redis.version),
        )
        followed = FromReleases.of(instruments, releases, "pointer")
        with following_rig(servers, followed, folder, partitions=PARTITIONS) as rig:
            tally, levels = _run(rig, releases, scale)
    plateau, last = plateau_and_last(levels)
    drift = max(abs(one / plateau - 1) for one in last)
    wrong = [] if drift < ALLOWED else [f"memory left its plateau by {drift:.1%}: {_in_mb(levels)}"]
    title = f"memory, {plateau / 1e6:.0f} MB at the plateau, {median(last) / 1e6:.0f} MB at the end"
    took_s = round(time.monotonic() - began_s, 1)
    yield replace(tally, campaign=title, took_s=took_s, wrong=(*tally.wrong, *wrong))


def _run(rig: WorkerRig, releases: Releases, scale: Scale) -> tuple[Tally, Sequence[int]]:
    """
    What became of the uploads, and the resident memory after each load.
    """
    topics, group = rig.settings.kafka.topics, rig.settings.kafka.group_id
    with ExitStack() as stack:
        worker = rig.start("one")
        worker.until_started()
        reader = stack.enter_context(
            LeanReader(rig.bootstrap_servers, [topics.verdicts, topics.dead_letters], isolation_level="read_committed")
        )
        watching = stack.enter_context(closing(Cluster(rig.bootstrap_servers, group)))
        watch = stack.enter_context(CommitWatch(watching, reader, topics.verdicts, topics.dead_letters))
        levels = [_loaded(number, rig, releases, worker, scale) for number in range(scale.memory_loads)]
        code = worker.stop()
        sent = sum(rig.cluster.ends(topics.uploads).values())
        read = reader.until_read(topics.verdicts, rig.cluster.ends(topics.verdicts), PATIENCE_S)
    wrong = [
        *([] if read else ["the verdicts were not read to their end"]),
        *([] if code == 0 else [f"the worker left with {code}"]),
    ]
    tally = Tally(
        "memory",
        faults=len(levels),
        rounds=len(levels),
        sent=sent,
        terminal=len(reader.terminal),
        lost=sent - len(reader.terminal),
        early=len(watch.passed),
        duplicates=reader.duplicates,
        wrong=(*wrong, *watch.passed[:3]),
    )
    return tally, levels


def _loaded(number: int, rig: WorkerRig, releases: Releases, worker: WorkerProcess, scale: Scale) -> int:
    """
    A share of the uploads, a load of the next bank in their midst; the resident memory when all are committed.
    """
    share = scale.memory_uploads // scale.memory_loads
    first = number * share
    before = len(worker.lines())
    events = (
        upload_event(f"memory/{one}", inline(picture(one % PICTURES)), key=f"user-{one % KEYS}")
        for one in range(first, first + share)
    )
    rig.publish(events)
    releases.activate(str((number + 1) % RELEASES + 1), BY)
    assert eventually(
        lambda: any('"bank.swapped"' in line for line in worker.lines()[before:]), deadline_s=PATIENCE_S
    ), worker.text()
    assert eventually(lambda: sum(rig.cluster.committed().values()) >= first + share, deadline_s=PATIENCE_S), (
        worker.text()
    )
    return resident_bytes(worker.process.pid)


def plateau_and_last(levels: Sequence[int]) -> tuple[float, Sequence[int]]:
    """
    The median of the second fifth, and the last fifth.
    """
    fifth = max(1, len(levels) // FIFTHS)
    return median(levels[fifth : 2 * fifth] or levels[:1]), levels[-fifth:]


def _in_mb(levels: Sequence[int]) -> str:
    return ", ".join(f"{one / 1e6:.0f}" for one in levels) + " MB"
