"""
Memory over many uploads and many loads of a bank: level, or somebody keeps what he should let go.

One worker, whose banks are releases of one another. Of ten uploads nine share 150 pictures, which Redis recalls, for
the process itself remembers 16 of them; the tenth is a picture that nobody has seen, and is decoded by a child process,
encoded and remembered. Every other one of those lies on a web server of ours and is read over https. 200,000 uploads
are so 20,000 pictures decoded and 10,000 fetched. What is held level is the worker, and apart from it the largest of
its decoder processes. Nothing is harmed here.
"""

import json
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import trustme

from tests.outcome_reader import CommitWatch, OutcomeReader
from tests.platform_side import Cluster, Event, Position, inline, small_jpeg, upload_event
from tests.release_rig import FromReleases, enlarged, following_rig, publish_versions, resident_bytes
from tests.scripted_web import ScriptedWeb, answer, scripted_web, tls_for
from tests.servers import eventually
from tests.soak.fleet import KEYS, PARTITIONS, PICTURES, picture
from tests.soak.ledger import wrong_end
from tests.soak.rounds import broken_off
from tests.soak.scale import Scale
from tests.soak.tally import Tally
from tests.soak.watching import PATIENCE_S
from tests.worker_rig import Instruments, WorkerProcess, WorkerRig
from worker.bank.releases import Issuer, Releases
from worker.dev.kafka_server import EmbeddedKafka
from worker.dev.redis_server import EmbeddedRedis
from worker.dev.servers import KafkaAt, RedisAt

RELEASES = 3
REFERENCES = 2_000
UNSEEN_EVERY = 10
FETCHED_EVERY = 2 * UNSEEN_EVERY
RECYCLE_AFTER = 2_000
"""Pictures of one decoder process; so some are worn out and replaced in the long form."""

ALLOWED = 0.05
FIFTHS = 5
"""Of the levels the first fifth is forgotten, the second is the plateau, and the last is held against it."""

BY = Issuer("a soak")
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Level:
    """
    Resident bytes of the worker, and of the largest of its decoder processes.
    """

    worker: int
    decoder: int

    @classmethod
    def of(cls, worker: WorkerProcess) -> "Level":
        """
        As it is now.
        """
        children = children_of(worker.process.pid)
        assert children, f"the worker has no decoder process; it logged:\n{worker.text()}"
        return cls(resident_bytes(worker.process.pid), max(resident_bytes(child) for child in children))


class LeanReader(OutcomeReader):
    """
    Keeps which uploads have an outcome and what was wrong with it, and not the outcomes.
    """

    def __init__(self, bootstrap_servers: str, topics: Sequence[str], *, isolation_level: str) -> None:
        self.terminal: set[Position] = set()
        self.duplicates = 0
        self.wrong: list[str] = []
        super().__init__(bootstrap_servers, topics, isolation_level=isolation_level)

    def _keep(self, message: Any) -> None:  # noqa: ANN401 - librdkafka's message
        super()._keep(message)
        outcome = self.outcomes.pop()
        self.duplicates += outcome.answers in self.terminal
        self.terminal.add(outcome.answers)
        # All that is sent here are pictures.
        wrong = wrong_end("judged", outcome.data) if "verdict_id" in outcome.data else "a picture has a dead letter"
        self.wrong += [f"{outcome.answers}: {wrong}"] if wrong else []


def level(instruments: Instruments, folder: Path, scale: Scale) -> Iterator[Tally]:
    """
    So many uploads and so many loads of a bank; what is resident at the end is what was resident early on.
    """
    began_s = time.monotonic()
    place = folder / f"releases-{scale.memory_loads}"
    place.mkdir()
    releases = publish_versions(enlarged(instruments.bank, place / "large", more=REFERENCES), place, RELEASES)
    releases.activate("1", BY)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(place / "ca.pem"))
    with ExitStack() as stack:
        kafka, redis = stack.enter_context(EmbeddedKafka()), stack.enter_context(EmbeddedRedis())
        web = stack.enter_context(scripted_web(tls_for(authority, HOST)))
        servers = (
            KafkaAt(kafka.bootstrap_servers, "embedded", kafka.version),
            RedisAt(redis.url, "embedded", redis.version),
        )
        followed = FromReleases.of(instruments, releases, "pointer")
        rig = stack.enter_context(following_rig(servers, followed, folder, partitions=PARTITIONS))
        rig.configure(
            "flow.recent_embeddings=16",
            f"decode.recycle_after={RECYCLE_AFTER}",
            "fetch.allow_private_addresses=true",
            f"fetch.ca_file={json.dumps(str(place / 'ca.pem'))}",
        )
        tally, levels = _run(rig, releases, web, scale)
    parts = {"worker": [one.worker for one in levels], "decoder": [one.decoder for one in levels]}
    title = "; ".join(["memory", *(in_words(name, held) for name, held in parts.items() if held)])
    drifted = [words for name, held in parts.items() if held for words in drift(name, held)]
    took_s = round(time.monotonic() - began_s, 1)
    yield replace(tally, campaign=title, took_s=took_s, wrong=(*tally.wrong, *drifted))


def _run(rig: WorkerRig, releases: Releases, web: ScriptedWeb, scale: Scale) -> tuple[Tally, Sequence[Level]]:
    """
    What became of the uploads, and the resident memory after each load; what broke off is told with what was counted.
    """
    topics, group = rig.settings.kafka.topics, rig.settings.kafka.group_id
    wrong: list[str] = []
    levels: list[Level] = []
    with ExitStack() as stack:
        worker = rig.start("one")
        reader = stack.enter_context(
            LeanReader(rig.bootstrap_servers, [topics.verdicts, topics.dead_letters], isolation_level="read_committed")
        )
        watching = stack.enter_context(closing(Cluster(rig.bootstrap_servers, group)))
        watch = stack.enter_context(CommitWatch(watching, reader, topics.verdicts, topics.dead_letters))
        try:
            worker.until_started()
            share = scale.memory_uploads // scale.memory_loads
            for number in range(scale.memory_loads):
                rig.publish(uploads(number * share, share, web))
                _loaded(number, rig, releases, worker)
                assert eventually(
                    lambda: sum(rig.cluster.committed().values()) >= sum(rig.cluster.ends(topics.uploads).values()),
                    deadline_s=PATIENCE_S,
                ), worker.text()
                levels.append(Level.of(worker))
            if (code := worker.stop()) != 0:
                wrong.append(f"the worker left with {code}")
        except Exception as fault:  # noqa: BLE001 - what was counted so far still counts, and the table tells of it
            traceback.print_exc()
            wrong.append(broken_off(f"load {len(levels) + 1}", fault))
        sent = sum(rig.cluster.ends(topics.uploads).values())
        if not reader.until_read(topics.verdicts, rig.cluster.ends(topics.verdicts), PATIENCE_S):
            wrong.append("the verdicts were not read to their end")
    tally = Tally(
        "memory",
        faults=len(levels),
        rounds=len(levels),
        sent=sent,
        terminal=len(reader.terminal),
        lost=sent - len(reader.terminal),
        early=len(watch.passed),
        duplicates=reader.duplicates,
        wrong=(*wrong, *reader.wrong[:3], *watch.passed[:3]),
    )
    return tally, levels


def _loaded(number: int, rig: WorkerRig, releases: Releases, worker: WorkerProcess) -> None:
    """
    The next bank is loaded, in the midst of the uploads.
    """
    before = len(worker.lines())
    releases.activate(str((number + 1) % RELEASES + 1), BY)
    assert eventually(
        lambda: any('"bank.swapped"' in line for line in worker.lines()[before:]), deadline_s=PATIENCE_S
    ), rig.text()


def uploads(first: int, count: int, web: ScriptedWeb) -> Iterator[Event]:
    """
    So many from this number on; the web server has the pictures of those that it is asked for, and no earlier ones.
    """
    web.routes.clear()
    web.asked.clear()
    for number in range(first, first + count):
        ref = inline(picture(number % PICTURES))
        if number % FETCHED_EVERY == 0:
            web.routes[f"/{number}.jpg"] = answer(200, small_jpeg(PICTURES + number))
            ref = {"kind": "https", "url": web.url(f"/{number}.jpg", host=HOST)}
        elif number % UNSEEN_EVERY == 0:
            ref = inline(small_jpeg(PICTURES + number))
        yield upload_event(f"memory/{number}", ref, key=f"user-{number % KEYS}")


def children_of(parent: int) -> Sequence[int]:
    """
    The processes that this one has started and that have not ended.
    """
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name of a program may hold anything, also what ends a name.
            state, above, *_ = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(above) == parent and state != "Z":
            found.append(int(stat.parent.name))
    return found


def drift(name: str, levels: Sequence[int]) -> Sequence[str]:
    """
    In words, where the last fifth has left the plateau.
    """
    plateau, last = plateau_and_last(levels)
    most = max(abs(one / plateau - 1) for one in last)
    shown = ", ".join(f"{one / 1e6:.0f}" for one in levels)
    return [] if most < ALLOWED else [f"the {name}'s memory left its plateau by {most:.1%}: {shown} MB"]


def in_words(name: str, levels: Sequence[int]) -> str:
    """
    For the title: where its memory was early on, and where it ended.
    """
    plateau, last = plateau_and_last(levels)
    return f"{name} {plateau / 1e6:.0f} MB at the plateau, {median(last) / 1e6:.0f} MB at the end"


def plateau_and_last(levels: Sequence[int]) -> tuple[float, Sequence[int]]:
    """
    The median of the second fifth, and the last fifth.
    """
    fifth = max(1, len(levels) // FIFTHS)
    return median(levels[fifth : 2 * fifth] or levels[:1]), levels[-fifth:]
