"""
``touchstone bench startup``: how long a worker takes until it is ready, by phase, and how much memory it then holds.

The worker is a process of its own on real servers. Its phases are read from its log, where
``worker.operation.start_phases`` tells them, and readiness is asked of its endpoints, as an orchestrator asks.
"""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Final
from uuid import uuid4

from worker.bench.banks import write_random_bank
from worker.bench.corpus import KINDS, write_variants
from worker.bench.cpu_time import TICKS_PER_S, cpu_s_of_trees
from worker.bench.encoders import bench_encoder
from worker.bench.live import Lane, Servers, bench_servers, lane_sets, settings_of, worker_command
from worker.bench.machine import machine
from worker.bench.measurement import Measured
from worker.bench.memory import MEBI, Held, held_by, peak_bytes, tree_of
from worker.bench.report import Report
from worker.bench.targets import Target
from worker.bench.uploads import file_events
from worker.decoders import open_reference_decoder
from worker.encoders import load_encoder
from worker.errors import WorkerCrashed
from worker.telemetry.metrics import InMemoryRecorder
from worker.views import GLOBAL_ONLY
from worker.whole_banks import configured_bank

PATIENCE_S: Final = 180.0
TARGET_S: Final = 10.0
TARGET_REFERENCES: Final = 100_000
"""To be ready within, with a warm file cache and so many references."""

MEMORY_NOTE: Final = (
    "memory_mib is resident: all that the worker and its decoders have in memory, libraries included, shared pages "
    "once for each process; private is theirs alone; proportional divides library pages with this benchmark, which "
    "maps them too, so that a worker alone holds more than that"
)

_LOOK_EVERY_S: Final = 0.02
_ASK_S: Final = 2.0

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class StartupPlan:
    """
    How much is measured: references in the bank, starts, and uploads of 1 MP after each start, to see memory settle.
    """

    references: int
    rounds: int
    uploads: int


@dataclass(frozen=True, slots=True)
class Start:
    """
    One start, in seconds from when the process was begun; ``phases`` overlap, so they do not add up to the whole.

    ``loaded_s``: the loop begins. ``ready_s``: it is a member of its group. ``held`` is after none of the uploads, half
    of them and all.
    """

    imported_s: float
    loaded_s: float
    ready_s: float
    cpu_s: float
    phases: Mapping[str, float]
    held: tuple[Held, Held, Held]
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class LogLine:
    """
    One line of the worker's log; ``at_s`` is in seconds since the epoch.
    """

    event: str
    at_s: float
    fields: Mapping[str, object] = field(repr=False)


def run_startup(plan: StartupPlan, sets: Sequence[str], *, folder: Path, progress: Progress) -> Report:
    """
    Starts in turn, each on topics of its own. Raises ``WorkerCrashed`` for a worker that does not get ready.
    """
    encoder = bench_encoder(settings_of(sets).encoder, folder / "encoders")
    named = [f"encoder.export_dir={json.dumps(str(folder / 'exports'))}", *sets, *encoder.sets()]
    settings = settings_of(named)
    if settings.bank.path is not None or settings.bank.releases is not None:
        plan = replace(plan, references=len(configured_bank(settings).stored.entries))
    else:
        loaded = load_encoder(settings.encoder, InMemoryRecorder())
        decoder = open_reference_decoder(settings, loaded.fingerprint.preprocess, GLOBAL_ONLY)
        bank = write_random_bank(folder / "banks", plan.references, encoder=loaded, decoder=decoder)
        named.append(f"bank.path={json.dumps(str(bank))}")
    paths = write_variants(folder / "pictures", plan.uploads, KINDS["1mp"]) if plan.uploads else []
    with bench_servers(os.environ) as servers:
        run = uuid4().hex[:8]
        # The first only warms the file cache: it is the second start that a deployment waits for.
        starts = []
        for number in range(plan.rounds + 1):
            progress("starts", number, plan.rounds + 1)
            starts.append(_one_start(f"{run}-{number}", named, servers, folder, paths=paths))
        progress("starts", plan.rounds + 1, plan.rounds + 1)
    notes = [f"{plan.references} references; the first start is left out: it warms the file cache."]
    if not encoder.trained:
        notes.append(f"{encoder.name} has random weights: it takes as long to load as a trained one.")
    return report_of(starts[1:], encoder.name, plan, notes)


def _asked(folder: Path) -> list[str]:
    return [
        f"fetch.file_root={json.dumps(str(folder / 'pictures'))}",
        "log.level=debug",
        "http.enabled=true",
        "http.port=0",
    ]


def _one_start(run: str, sets: Sequence[str], servers: Servers, folder: Path, *, paths: Sequence[str]) -> Start:
    named = lane_sets(run, "startup", servers, [*sets, *_asked(folder)])
    log_file = folder / f"worker-{run}.log"
    lane = Lane("startup", settings_of(named), servers, log_file=log_file)
    with lane.running(worker_command(named)):
        port = _until_logged(lane, log_file, "http.listening").fields["port"]
        _until_logged(lane, log_file, "worker.started")
        ready_s = _until_ready(lane, f"http://127.0.0.1:{port}/readyz")
        cpu_s = cpu_s_of_trees([lane.pid])
        held = [held_by(tree_of(lane.pid))]
        for half in (paths[: len(paths) // 2], paths[len(paths) // 2 :]):
            if half:
                lane.answered(file_events(f"{run}-{len(held)}", half))
            held.append(held_by(tree_of(lane.pid)))
        began_s = process_began_s(lane.pid)
        lines = list(log_lines(log_file))
        peak = peak_bytes(lane.pid)
    first = {line.event: line.at_s - began_s for line in reversed(lines)}
    phases = {
        str(line.fields["phase"]): float(str(line.fields["wall_s"])) for line in lines if line.event == "start.phase"
    }
    return Start(
        imported_s=first["http.listening"],
        loaded_s=first["worker.started"],
        ready_s=ready_s - began_s,
        cpu_s=cpu_s,
        phases=phases,
        held=(held[0], held[1], held[2]),
        peak_bytes=peak,
    )


def _until_logged(lane: Lane, log_file: Path, event: str) -> LogLine:
    give_up_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_s:
        for line in log_lines(log_file):
            if line.event == event:
                return line
        lane.check()
        time.sleep(_LOOK_EVERY_S)
    raise WorkerCrashed(f"the worker did not log {event} within {PATIENCE_S:.0f} s; its log is {log_file}")


def _until_ready(lane: Lane, url: str) -> float:
    """
    When it said that it is ready, in seconds since the epoch.
    """
    give_up_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_s:
        lane.check()
        try:
            with urllib.request.urlopen(url, timeout=_ASK_S):  # noqa: S310 - our own worker, over http
                return time.time()
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(_LOOK_EVERY_S)
    raise WorkerCrashed(f"the worker was not ready within {PATIENCE_S:.0f} s; {url} says what is missing")


def log_lines(log_file: Path) -> Iterator[LogLine]:
    """
    The lines that are there by now, but for what is not of ours.
    """
    for text in log_file.read_text(encoding="utf-8", errors="replace").splitlines():
        # The last line may be half written, and libraries may print what they like.
        with suppress(ValueError, KeyError, TypeError):
            fields = json.loads(text)
            yield LogLine(fields["event"], datetime.fromisoformat(fields["ts"]).timestamp(), fields)


def process_began_s(pid: int) -> float:
    """
    When a process was begun, in seconds since the epoch, to the hundredth.
    """
    up_s = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    began_ticks = int(stat.rpartition(")")[2].split()[19])
    return time.time() - (up_s - began_ticks / TICKS_PER_S)


def report_of(starts: Sequence[Start], model: str, plan: StartupPlan, notes: Sequence[str]) -> Report:
    """
    What these starts come to; the median one is held against the target. Raises ``ValueError`` without any.
    """
    ready = Measured.of("ready", "s", (one.ready_s for one in starts))
    figures = [
        Measured.of("own code imported", "s", (one.imported_s for one in starts)),
        Measured.of("loaded, loop begins", "s", (one.loaded_s for one in starts)),
        ready,
        Measured.of("CPU until ready", "core-s", (one.cpu_s for one in starts)),
        *(
            Measured.of(f"phase {name}", "s", (one.phases[name] for one in starts))
            for name in starts[0].phases
            if all(name in one.phases for one in starts)
        ),
        Measured.of("peak of the worker", "MiB", (one.peak_bytes / MEBI for one in starts)),
    ]
    for when, at in (("when ready", 0), *((("after half", 1), ("after all", 2)) if plan.uploads else ())):
        figures += [
            Measured.of(f"resident {when}", "MiB", (one.held[at].resident_bytes / MEBI for one in starts)),
            Measured.of(f"private {when}", "MiB", (one.held[at].private_bytes / MEBI for one in starts)),
            Measured.of(f"proportional {when}", "MiB", (one.held[at].proportional_bytes / MEBI for one in starts)),
        ]
    summary = {
        "ready_s": round(ready.median, 3),
        "target_s": TARGET_S,
        "within_target": ready.median <= TARGET_S,
        "references": plan.references,
        "uploads": plan.uploads,
        "memory_mib": round(median(one.held[2].resident_bytes for one in starts) / MEBI),
        "memory_private_mib": round(median(one.held[2].private_bytes for one in starts) / MEBI),
        "memory_proportional_mib": round(median(one.held[2].proportional_bytes for one in starts) / MEBI),
        "model": model,
    }
    others = None if plan.references == TARGET_REFERENCES else f"{TARGET_REFERENCES:,} references"
    target = Target("ready_s", TARGET_S, ready.median, at_least=False, given=others)
    return Report("start-up and memory", summary, figures, machine(), [*notes, MEMORY_NOTE], [target])
