"""
``touchstone bench e2e``: the worker, the naive loop and the batched one take turns on real servers, in one run.

Each is a process of its own that stays up, over its own topics. What a round's numbers come to is ``e2e_result.py``.
"""

import itertools
import os
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self
from uuid import uuid4

from worker.adapters.kafka_platform import PublishedEvent
from worker.bench.cached import again_and_again, remember_all, write_contents
from worker.bench.corpus import DRAWN, KINDS, Kind, write_variants
from worker.bench.cpu_time import cores_here
from worker.bench.e2e_result import MEMORY_NOTE, Rounds, figures_of, summary_of, targets_of
from worker.bench.encoders import BenchEncoder, bench_encoder
from worker.bench.live import START_PATIENCE_S, Lane, Servers, bench_servers, lane_sets, settings_of, worker_command
from worker.bench.machine import machine
from worker.bench.measurement import Took, interleaved, took_here
from worker.bench.naive_tools import NaiveJob
from worker.bench.peer import BATCH, Peer, running_peer
from worker.bench.report import Report
from worker.bench.stages import Stage, stages_of, takes_part
from worker.bench.stages_run import ROOFLINE_NOTE
from worker.bench.subjects import Subject, opened_subject
from worker.bench.uploads import file_events
from worker.dev.small_encoder import write_small_encoder
from worker.encoders import device_of, encodes_on_gpu
from worker.settings.tree import Settings

NAIVE_BATCH: Final = 32
STAGE_BATCH: Final = 32
MOST_NAIVE: Final = 96
MOST_BATCHED: Final = 192
MOST_LIGHT: Final = 960
"""However long the worker's rounds are asked to be: of these lanes a longer round says no more."""

RECENT_CONTENTS: Final = 500
"""Few enough for a worker to remember them all; none of them is among those that Redis is asked for."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class E2ePlan:
    """
    How much is measured: uploads of one round by lane, rounds, and references in the bank.

    The naive loops get fewer, for they are slower: all rounds should take about as long. A loop of 0 is left out.
    """

    uploads: int
    naive_uploads: int
    batched_uploads: int
    light_uploads: int
    cached_uploads: int
    contents: int
    references: int
    rounds: int
    peer_python: Path | None = None

    @classmethod
    def of(cls, uploads: int, cached_uploads: int, *, references: int, rounds: int, loops: Collection[str]) -> Self:
        """
        The plan of these numbers, the others in proportion; ``loops`` are those of naive and batched that take part.
        """
        return cls(
            uploads=uploads,
            naive_uploads=max(8, min(MOST_NAIVE, uploads // 5)) if "naive" in loops else 0,
            batched_uploads=max(8, min(MOST_BATCHED, uploads // 2)) if "batched" in loops else 0,
            light_uploads=max(24, min(MOST_LIGHT, uploads * 5 // 2)),
            cached_uploads=cached_uploads,
            # None comes again before a whole round of others, more than flow.recent_embeddings: partitions are read one
            # after the other, and what comes again sooner a worker knows without asking Redis.
            contents=2 * cached_uploads,
            references=references,
            rounds=rounds,
        )

    @property
    def most_new(self) -> int:
        """
        How many new pictures a lane is given in all, the warm-up counted in.
        """
        return NAIVE_BATCH + self.rounds * max(self.uploads, self.batched_uploads, self.naive_uploads)


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where a run takes place: a folder for what it writes, settings of the caller, and the servers.
    """

    folder: Path
    sets: Sequence[str]
    servers: Servers
    run: str

    @property
    def root(self) -> Path:
        """
        The file root of all lanes.
        """
        return self.folder / "pictures"

    def lane_sets(self, lane: str) -> list[str]:
        """
        The settings of a lane's worker, the caller's last.
        """
        own = [f'fetch.file_root="{self.root}"', f'encoder.export_dir="{self.folder / "exports"}"']
        return lane_sets(self.run, lane, self.servers, [*own, *self.sets])


class E2eRun:
    """
    The lanes and what they are given; ``measured`` is called once.
    """

    def __init__(self, plan: E2ePlan, place: Place, stack: ExitStack) -> None:
        self._plan = plan
        self._place = place
        self._stack = stack
        place.root.mkdir(parents=True, exist_ok=True)
        configured = settings_of(place.lane_sets("worker")).encoder
        self.subject = self._opened("worker", bench_encoder(configured, place.folder / "encoders"))
        self._light = self._opened("light", small_encoder(place.folder / "encoders" / "small"))
        large = _files(place.root, "new", plan.most_new, KINDS["1mp"])
        small = _files(place.root, "light", (plan.rounds + 1) * plan.light_uploads, KINDS["tiny"])
        self._new = {lane: iter(large) for lane in ("worker", "naive", "batched")} | {"light": iter(small)}
        inputs = self.subject.inputs(large[:STAGE_BATCH])
        self._stages = _needed(stages_of(inputs, self.subject.settings))
        if plan.peer_python is not None:
            # As many as the worker: what filling and running dry take weighs the same in both rounds.
            named = _files(place.root, "peer", plan.uploads, KINDS["1mp"])
            self._first_vector = self.subject.inputs(sorted(named)[:1]).sightings[0].embedding.vector.tolist()
        self._light_stages = _needed(stages_of(self._light.inputs(small[:STAGE_BATCH]), self._light.settings))
        contents = write_contents(place.root, RECENT_CONTENTS + plan.contents)
        recent, others = contents[:RECENT_CONTENTS], contents[RECENT_CONTENTS:]
        remember_all(contents, self.subject, like=inputs.sightings[0])
        known = self.subject.inputs([one.path for one in contents[:STAGE_BATCH]])
        self._cached_stages = [stage for stage in stages_of(known, self.subject.settings) if stage.name == "fetch"]
        self._known = {"cached": again_and_again(others), "recent": again_and_again(recent)}

    def measured(self, progress: Progress) -> Rounds:
        """
        All rounds of all lanes.
        """
        plan, rounds = self._plan, Rounds()
        uploads = {"worker": plan.uploads, "light": plan.light_uploads}
        uploads |= {"naive": plan.naive_uploads, "batched": plan.batched_uploads}
        # First: should it not run here, nobody has waited for the others.
        peer = None if plan.peer_python is None else self._peer(plan.peer_python)
        lanes = {name: self._started(name) for name, count in uploads.items() if count}
        for name, lane in lanes.items():
            progress("lanes ready", len(rounds.ready), len(lanes))
            lane.answered(self._fresh(name, min(uploads[name], NAIVE_BATCH)), patience_s=START_PATIENCE_S)
            rounds.ready.append(name)
        contenders = {name: partial(self._once, rounds, lane, uploads[name]) for name, lane in lanes.items()}
        contenders |= {name: partial(self._known_once, rounds, name, lanes["worker"]) for name in self._known}
        if peer is not None:
            contenders["peer"] = partial(self._peer_once, rounds, peer)
        contenders["stages"] = partial(_add_costs, rounds.stages, self._stages)
        contenders["light stages"] = partial(_add_costs, rounds.light_stages, self._light_stages)
        contenders["cached stages"] = partial(_add_costs, rounds.cached_stages, self._cached_stages)
        count = plan.rounds * len(contenders)
        done = itertools.count(1)
        interleaved(contenders, plan.rounds, on_done=lambda *_: progress("measured", next(done), count))
        return rounds

    def _once(self, rounds: Rounds, lane: Lane, uploads: int) -> None:
        rounds.add(lane.name, lane.answered(self._fresh(lane.name, uploads)))
        if lane.name == "worker":
            rounds.look_at_memory(uploads, lane.pid)

    def _known_once(self, rounds: Rounds, name: str, worker: Lane) -> None:
        paths = itertools.islice(self._known[name], self._plan.cached_uploads)
        rounds.add(name, worker.answered(file_events(f"{name}-{uuid4().hex[:8]}", paths)))
        rounds.look_at_memory(self._plan.cached_uploads, worker.pid)

    def _peer(self, python: Path) -> Peer:
        """
        The peer, which embeds the pictures by which the stages are measured, once loaded and once tried.
        """
        loaders = cores_here()
        peer = self._stack.enter_context(
            running_peer(python, self.subject.encoder, self._place.folder, loaders=loaders)
        )
        peer.embedded(self._place.root / "peer", self._first_vector)
        return peer

    def _peer_once(self, rounds: Rounds, peer: Peer) -> None:
        rounds.peer.append(peer.embedded(self._place.root / "peer"))

    def _fresh(self, lane: str, count: int) -> list[PublishedEvent]:
        """
        So many uploads of pictures that this lane has not seen.
        """
        return file_events(f"{lane}-{uuid4().hex[:8]}", itertools.islice(self._new[lane], count))

    def _opened(self, lane: str, encoder: BenchEncoder) -> Subject:
        sets = self._place.lane_sets(lane)
        own = [one for one in sets if not (lane == "light" and one.startswith(("encoder.", "bank.")))]
        if lane == "light":
            # So small an encoder is mostly Python, and two at once would fight over the interpreter.
            own.append("encoder.instances=1")
        subject = opened_subject(own, encoder, references=self._plan.references, folder=self._place.folder / "banks")
        self._stack.callback(subject.store.close)
        return subject

    def _started(self, name: str) -> Lane:
        place = self._place
        if name in ("worker", "light"):
            subject = self.subject if name == "worker" else self._light
            settings, command = subject.settings, worker_command(subject.sets)
        else:
            settings = settings_of([*self.subject.sets, *lane_sets(place.run, name, place.servers)])
            command = naive_command(settings, self.subject, batch=NAIVE_BATCH if name == "batched" else 1)
        lane = Lane(name, settings, place.servers, log_file=place.folder / f"{name}.log")
        return self._stack.enter_context(lane.running(command))


def run_e2e(plan: E2ePlan, sets: Sequence[str], *, folder: Path, progress: Progress) -> Report:
    """
    The whole benchmark, with what it writes in ``folder``.

    Raises ``CannotStart`` and its kinds where something is missing, and ``WorkerCrashed`` where an upload of any
    contender is lost, answered twice or failed.
    """
    with ExitStack() as stack:
        servers = stack.enter_context(bench_servers(os.environ))
        place = Place(folder, sets, servers, uuid4().hex[:8])
        run = E2eRun(plan, place, stack)
        rounds = run.measured(progress)
        subject = run.subject
    return report_of(rounds, subject, plan)


def report_of(rounds: Rounds, subject: Subject, plan: E2ePlan) -> Report:
    """
    What the run is told as.
    """
    cores, window = cores_here(), subject.settings.flow.max_in_flight
    figures = figures_of(rounds, cores=cores, window=window)
    on_device = encodes_on_gpu(subject.settings.encoder)
    summary = summary_of(rounds, figures, cores=cores, on_device=on_device) | {
        **subject.told(),
        "cores": cores,
        "references": subject.instruments.bank.identity.entries,
        "batch_size": subject.settings.batch.size,
        "uploads_per_round": plan.uploads,
        "rounds": plan.rounds,
    }
    pictures = (
        "images of 1 MP, 100 to 200 KB, below a file root; every byte sequence is new, every picture comes back in "
        f"other bytes after {DRAWN}"
    )
    known = (
        "overhead: new images of 160 x 120 through a small encoder, one batch at a time; "
        f"cached: {plan.contents} contents of 20 KB whose sightings Redis holds; recent: {RECENT_CONTENTS} others, "
        "which the worker remembers"
    )
    steady = (
        "images_per_s and roofline_fraction are of whole rounds, filling and running dry included; the steady ones of "
        f"the part in which {window} uploads were under way all the time (flow.max_in_flight), and null in rounds of "
        "no more than twice that; cores_idle is what nobody used of the cores in whole rounds"
    )
    notes = [pictures, known, ROOFLINE_NOTE, steady, MEMORY_NOTE]
    if plan.peer_python is not None:
        notes.append(
            f"peer: clip-retrieval's reader and mapper in batches of {BATCH}, as many images a round as the worker, "
            "from files to vectors alone, without broker, cache, search or verdict; starting its loaders is not in its "
            "rate"
        )
    notes += subject.encoder.notes
    return Report("touchstone bench e2e", summary, figures, machine(), notes, targets_of(summary, on_device=on_device))


def naive_command(settings: Settings, subject: Subject, *, batch: int) -> list[str]:
    """
    The command line of a naive loop over the topics of these settings, with the subject's weights and references.
    """
    topics = settings.kafka.topics
    job = NaiveJob(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        uploads=topics.uploads,
        verdicts=topics.verdicts,
        group_id=settings.kafka.group_id,
        redis_url=settings.redis.url.get_secret_value(),
        namespace=settings.redis.namespace,
        file_root=str(settings.fetch.file_root),
        model_folder=str(subject.encoder.folder),
        bank=str(settings.bank.path),
        k=subject.instruments.policy.rule.k,
        batch=batch,
        device=device_of(settings.encoder),
    )
    return [sys.executable, "-m", "worker.bench.naive", job.as_json()]


def small_encoder(folder: Path) -> BenchEncoder:
    """
    An encoder so small that what it costs does not hide what the worker costs.
    """
    small = write_small_encoder(folder)
    return BenchEncoder("small", small.model, small.checkpoint_sha256, folder, trained=False)


def _files(root: Path, below: str, count: int, kind: Kind) -> list[str]:
    return [f"{below}/{name}" for name in write_variants(root / below, count, kind)]


def _needed(stages: Sequence[Stage]) -> list[Stage]:
    needed = [stage for stage in stages if takes_part(stage.name)]
    for stage in needed:
        stage.work()
    return needed


def _add_costs(found: dict[str, list[Took]], stages: Sequence[Stage]) -> None:
    for stage in stages:
        found.setdefault(stage.name, []).append(took_here(stage.work).per(stage.uploads))
