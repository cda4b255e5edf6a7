"""
``touchstone stress``: uploads at a rate to workers that run already, and whether every promise held meanwhile.

The run is in ``worker.bench.stress``, what it says of the workers in ``worker.bench.stress_result``.
"""

import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich import box
from rich.console import Console
from rich.table import Table

from worker.bench.arrivals import KINDS, Arrivals, arrival_times
from worker.cli.options import settings_options
from worker.cli.progress_bars import progress_bars
from worker.errors import EXIT_FOUND, EXIT_OK, ConfigInvalid
from worker.settings.load import LoadedSettings

if TYPE_CHECKING:
    from worker.bench.stress_result import StressResult
    from worker.bench.stress_uploads import EventOf
    from worker.settings.tree import Settings

SECONDS: Final = 30.0
PICTURES: Final = 32
"""Different pictures that take turns; every upload has bytes of its own all the same."""

SETTLE_S: Final = 1.0
"""For which outcomes are read on after the last one was there: a second one would come about then."""

SIZES: Final = ("tiny", "20kb", "0.2mp", "0.5mp", "1mp", "2mp", "4mp", "8mp", "12mp")
Told = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """
    The options, as they were given.
    """

    rate: float
    seconds: float | None
    uploads: int | None
    arrivals: Arrivals
    events: Path | None
    picture: str
    ref: str
    repeated: float
    seed: int
    max_drop: float
    max_failed: float
    max_p50_ms: float | None
    max_p99_ms: float | None
    allow_repeats: bool
    patience_s: float

    @property
    def count(self) -> int:
        """
        How many uploads that are. Raises ``ConfigInvalid`` where it was said twice.
        """
        if self.uploads is not None and self.seconds is not None:
            raise ConfigInvalid("found --seconds and --uploads; expected one of them: either says how many uploads")
        if self.uploads is not None:
            return self.uploads
        return max(1, round(self.rate * (SECONDS if self.seconds is None else self.seconds)))


@click.command()
@click.option("--rate", type=click.FloatRange(0, min_open=True), required=True, help="Uploads per second.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="For so long. Default: 30.")
@click.option("--uploads", type=click.IntRange(1), help="Instead: so many uploads.")
@click.option(
    "--arrivals",
    type=click.Choice(KINDS),
    default="poisson",
    show_default=True,
    help="Each at random, as people upload; or evenly.",
)
@click.option(
    "--events",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Data of uploads, one JSON object per line, in turn; instead of pictures that are drawn.",
)
@click.option("--picture", type=click.Choice(SIZES), default="20kb", show_default=True, help="Size of drawn pictures.")
@click.option(
    "--ref",
    type=click.Choice(["inline", "file"]),
    default="inline",
    show_default=True,
    help="Pictures within their events, or below fetch.file_root.",
)
@click.option(
    "--repeated",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Share of uploads whose bytes were uploaded before.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of pictures and arrivals.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of uploads that may stay without outcome.",
)
@click.option(
    "--max-failed",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of outcomes that may be failures, as of given uploads that are none.",
)
@click.option("--max-p50-ms", type=click.FloatRange(0), help="Most milliseconds for every second upload.")
@click.option("--max-p99-ms", type=click.FloatRange(0), help="Most milliseconds for 99 of 100 uploads.")
@click.option(
    "--allow-repeats", is_flag=True, help="The same verdict twice is no fault, as while at_least_once workers restart."
)
@click.option(
    "--patience-s",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Give up when no outcome has come for so long.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and no progress.")
@settings_options
def stress(loaded: LoadedSettings, *, as_json: bool, **options: Any) -> int:  # noqa: ANN401 - click's
    """
    Send uploads at a rate to the workers that run with these settings, whatever they do, and read what they answer.

    Every upload must end exactly once, with a judgement and in the order of its partition; nothing else may be
    answered in its name.
    Latencies count from the moment at which an upload was to be sent to the arrival of its verdict here. Exit code 0
    when all of it holds, 1 when a promise or a limit does not, 3 when nobody answers, and 4 when the stress itself did
    not hold its rate. Event ids begin with `stress-`, so that readers of verdicts can pass over them.
    """
    asked = Asked(**options)
    with progress_bars(shown=not as_json) as report:
        result = _run(loaded.settings, asked, report)
    print(json.dumps(result.as_object(), indent=2)) if as_json else _show(result)
    return _ended(result)


def _run(settings: "Settings", asked: Asked, report: Told) -> "StressResult":
    from worker.bench.stress import StressPlan, run_stress  # noqa: PLC0415 - kafka takes its time; --help needs none
    from worker.bench.stress_result import Limits, result_of  # noqa: PLC0415 - likewise
    from worker.bench.stress_uploads import new_run  # noqa: PLC0415 - likewise

    run = new_run()
    times = arrival_times(asked.arrivals, rate=asked.rate, count=asked.count, seed=asked.seed)
    limits = Limits(**{one.name: getattr(asked, one.name) for one in fields(Limits)})
    with ExitStack() as stack:
        event_of = _events(run, asked, settings=settings, stack=stack, report=report)
        platform = stack.enter_context(platform_of(settings))
        plan = StressPlan(run, times, event_of, patience_s=asked.patience_s, settle_s=SETTLE_S)
        happened = run_stress(plan, platform, progress=lambda done, of: report("outcomes", done, of))
    return result_of(plan, happened, limits)


def platform_of(settings: "Settings") -> Any:  # noqa: ANN401 - a context that gives a Platform
    """
    The topics of these settings, seen from the platform's side.
    """
    from worker.adapters.kafka_stress import KafkaPlatform  # noqa: PLC0415 - kafka takes its time

    return KafkaPlatform(settings.kafka)


def _events(run: str, asked: Asked, *, settings: "Settings", stack: ExitStack, report: Told) -> "EventOf":
    from worker.bench import stress_uploads as uploads  # noqa: PLC0415 - kafka and pillow take their time
    from worker.bench.corpus import KINDS as SIZED  # noqa: PLC0415 - likewise
    from worker.bench.corpus import pictures as drawn  # noqa: PLC0415 - likewise

    if asked.events is not None:
        with asked.events.open(encoding="utf-8") as lines:
            return uploads.given_uploads(run, lines, named=str(asked.events))
    root = settings.fetch.file_root
    if asked.ref == "file" and root is None:
        raise ConfigInvalid("--ref file needs fetch.file_root, the same directory that the workers read; it is not set")
    shown = uploads.numbers_of_bytes(asked.count, asked.repeated, seed=asked.seed)
    wanted = min(PICTURES, asked.count)
    pictures = []
    for one in drawn(wanted, SIZED[asked.picture], first=asked.seed * PICTURES):
        pictures.append(one)
        report("pictures", len(pictures), wanted)
    if asked.ref == "inline" or root is None:
        return uploads.inline_uploads(run, pictures, shown)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{run}-", dir=root)))
    folder.chmod(0o755)  # workers may be somebody else
    written = len(set(shown))
    return uploads.file_uploads(run, pictures, shown, folder, wrote=lambda done: report("files", done, written))


def _ended(result: "StressResult") -> int:
    from worker.bench.stress import StressFailed  # noqa: PLC0415 - kafka takes its time

    for sentence in result.broken:
        click.echo(f"touchstone: {sentence}", err=True)
    if result.faults and result.broken:
        return EXIT_FOUND
    if result.unfit:
        raise StressFailed(
            f"the stress was not what was asked for: {'; '.join(result.unfit)}. Its figures say nothing of the "
            "workers: give this machine more room, ask for a lower --rate, or run several from different machines"
        )
    return EXIT_FOUND if result.broken else EXIT_OK


def _show(result: "StressResult") -> None:
    latency = result.latency
    rows = [
        ("uploads", f"{result.acknowledged} of {result.uploads} acknowledged by Kafka"),
        ("sent per second", f"{_number(result.attained_per_s)} (planned: {_number(result.planned_per_s)})"),
        ("sent too late, p99", f"{result.sent_late_p99_ms:.1f} ms"),
        ("answered per second", _number(result.answered_per_s)),
        ("ended", ", ".join(f"{count} {status}" for status, count in sorted(result.statuses.items())) or "none"),
        ("without outcome", f"{result.acknowledged - result.ended} (drop rate {result.drop_rate:.4g})"),
        ("retried later", str(result.retried)),
        ("latency p50", _milliseconds(latency.p50_ms)),
        ("latency p90", _milliseconds(latency.p90_ms)),
        ("latency p99", _milliseconds(latency.p99_ms)),
        ("latency max", _milliseconds(latency.max_ms)),
        ("faults", ", ".join(f"{one.count} {one.kind}" for one in result.faults) or "none"),
    ]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _milliseconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} ms"
