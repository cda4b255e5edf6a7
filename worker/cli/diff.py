"""
``touchstone diff``: which decisions differ between two sets of verdicts, and whether that is too much.

Options, progress and exit code only; what is compared, and how, is ``worker.diff``.
"""

import functools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from schemas.verdict import ImageVerdictV1
from worker.adapters.verdict_lines import ReadSoFar
from worker.cli.options import settings_options
from worker.cli.progress_bars import progress_bars
from worker.diff.comparison import Comparison, compare
from worker.diff.finished import doubts
from worker.diff.gates import Bound, GateResult, Gates, ShiftBound, judge_gates
from worker.diff.joining import SideName, joined
from worker.diff.reading import SideSpec, parse_side, read_sides
from worker.errors import EXIT_FOUND, EXIT_OK, CannotStart, ConfigInvalid
from worker.settings.load import LoadedSettings
from worker.settings.tree import KafkaSettings

if TYPE_CHECKING:
    from worker.flow.replay_run import RunState


def gate_options(command: Callable[..., int]) -> Callable[..., int]:
    """
    The bounds; passed to the command as one ``Gates``.
    """

    @click.option("--max-flips", metavar="N|P%", help="At most so many events may be decided differently.")
    @click.option(
        "--max-flips-to",
        nargs=2,
        multiple=True,
        metavar="LABEL N|P%",
        help="At most so many may flip to this decision: a label, uncertain or failed. May be repeated.",
    )
    @click.option(
        "--max-score-shift",
        multiple=True,
        metavar="[QUANTILE=]X",
        help="At most so far may scores move: 0.05 bounds the 99th percentile of the absolute shift, max=0.2 another "
        "(p50, p90, p95, p99, p999, max). May be repeated.",
    )
    @click.option("--max-missing", metavar="N|P%", help="At most so many events may be in only one of A and B.")
    @click.option("--require-equal", is_flag=True, help="No compared field may differ, no event be missing.")
    @functools.wraps(command)
    def with_gates(
        *args: object,
        max_flips: str | None,
        max_flips_to: tuple[tuple[str, str], ...],
        max_score_shift: tuple[str, ...],
        max_missing: str | None,
        require_equal: bool,
        **kwargs: object,
    ) -> int:
        gates = Gates(
            flips=None if max_flips is None else Bound.parse(max_flips),
            flips_to=[(label, Bound.parse(bound)) for label, bound in max_flips_to],
            score_shift=[ShiftBound.parse(bound) for bound in max_score_shift],
            missing=None if max_missing is None else Bound.parse(max_missing),
            require_equal=require_equal,
        )
        return command(*args, gates=gates, **kwargs)

    return with_gates


@click.command()
@click.argument("a")
@click.argument("b")
@click.option(
    "--topic",
    "run_topics",
    metavar="NAME",
    multiple=True,
    help="Where run:RUN_ID is looked for; may be repeated. Default: the verdict topic and the shadow topic.",
)
@click.option(
    "--from",
    "since",
    metavar="TIME",
    help="Of topics, read only what was written since then, such as 2026-11-22T10:00:00Z. Default: all.",
)
@click.option(
    "--within-b",
    is_flag=True,
    help="Of A, take only uploads between the first and the last of B in each partition of the upload topic: for a "
    "replay of a part of what was live.",
)
@click.option(
    "--allow-unfinished",
    is_flag=True,
    help="Let bounds pass on replays that have not finished, or of which nobody can tell.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Numbers that lie within it of each other are equal.",
)
@click.option("--movers", type=click.IntRange(min=0), default=20, show_default=True, help="Worst movers to keep.")
@gate_options
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.html", help="Write a report.")
@click.option("--json", "as_json", is_flag=True, help="One object instead of tables.")
@settings_options
def diff(  # noqa: PLR0917 - click passes all of them by name
    a: str,
    b: str,
    run_topics: tuple[str, ...],
    since: str | None,
    gates: Gates,
    out: Path | None,
    *,
    within_b: bool,
    allow_unfinished: bool,
    tolerance: float,
    movers: int,
    as_json: bool,
    loaded: LoadedSettings,
) -> int:
    """
    Compare the verdicts of A and B, event by event.

    A and B are each a FILE with one verdict per line (as `touchstone scan --json` and `touchstone replay --out FILE`
    write it), topic:NAME, or run:RUN_ID of a replay or a shadow; each may end in #mode=MODE (live, shadow,
    replay, scan) to take only those. Of several verdicts on one event the newest counts.

    A flip is an event that the two decide differently; a failed verdict decides `failed`. What differs between two runs
    at equal versions, such as times and cache, is not compared.

    No bound passes on a replay that has not finished, or of which nobody can tell: a file's run is kept beside it
    (FILE.run.json), a topic's by the brokers, until offsets.retention.minutes after it ended. Nor does one pass where a
    replay judged the same upload twice.

    Exit code 0: within all bounds, or none was given. 1: a bound is exceeded, or bounds were given and A and B have no
    event in common, or a replay lets none pass. 2: the command line is wrong. 3: a side is empty, or cannot be read. 4:
    Kafka failed midway.
    """
    sides: dict[SideName, SideSpec] = {"a": parse_side(a), "b": parse_side(b)}
    kafka = loaded.settings.kafka
    started = None if since is None else _time(since)
    _require_folder(out)

    def read_topic(topic: str, progress: ReadSoFar) -> Iterator[ImageVerdictV1]:
        from worker.adapters.kafka_verdicts import read_verdicts  # noqa: PLC0415 - files need no client of Kafka

        return read_verdicts(kafka, topic, since=started, progress=progress)

    with joined() as store, progress_bars(shown=not as_json) as report:
        topics = _run_topics(kafka, sides, run_topics)
        replays = read_sides(store, sides, topics, read_topic=read_topic, report=report)
        pairs = store.pairs(within_b=within_b)
        found = compare(pairs, (a, b), tolerance=tolerance, most_movers=movers)
        found.versions = store.versions
    doubted = list(doubts(sides, replays, partial(_find_run, kafka)))
    results = judge_gates(gates, found, () if allow_unfinished else [doubt.found for doubt in doubted])
    _tell(found, results, out=out, as_json=as_json)
    exceeded = [gate for gate in results if not gate.passed]
    for gate in exceeded:
        click.echo(f"touchstone: gate {gate.name}: found {gate.found}, allowed {gate.allowed}", err=True)
    for doubt in doubted:
        # Without bounds, what nobody can tell keeps nobody from looking.
        if doubt.certain or gates.asked:
            click.echo(f"touchstone: {doubt.found}: {doubt.advice}", err=True)
    return EXIT_FOUND if exceeded else EXIT_OK


def _find_run(kafka: KafkaSettings, run_id: str) -> "RunState | None":
    from worker.adapters.kafka_run_state import find_run  # noqa: PLC0415 - files need no client of Kafka

    return find_run(kafka, run_id)


def _tell(found: Comparison, results: list[GateResult], *, out: Path | None, as_json: bool) -> None:
    if out is not None:
        from worker.diff.report import write_report  # noqa: PLC0415 - matplotlib is for those who want the page

        try:
            write_report(found, results, out)
        except OSError as error:
            raise CannotStart(f"--out {out} cannot be written ({error.strerror}); name a file that can") from error
    if as_json:
        from worker.diff.json_view import diff_object  # noqa: PLC0415 - likewise only when asked for

        click.echo(json.dumps(diff_object(found, results), ensure_ascii=False))
        return
    from worker.diff.tables import diff_tables  # noqa: PLC0415 - likewise

    console = Console()
    for part in diff_tables(found, results):
        console.print(part)
    if found.compared == 0:
        console.print("A and B have no event in common: are both about the same uploads?")


def _run_topics(kafka: KafkaSettings, sides: dict[SideName, SideSpec], given: tuple[str, ...]) -> list[str]:
    if given or not any(spec.kind == "run" for spec in sides.values()):
        return list(dict.fromkeys(given))
    from worker.adapters.kafka_topics import topics_of  # noqa: PLC0415 - files need no client of Kafka

    # The shadow topic is there only where somebody has a shadow; the verdict topic must be.
    with topics_of(kafka) as found:
        present = found.find([kafka.topics.shadow_verdicts])
    return [kafka.topics.verdicts, *present]


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigInvalid(f"--from {text!r} is no time; expected one such as 2026-11-22T10:00:00Z") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _require_folder(out: Path | None) -> None:
    # Told before reading takes minutes.
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigInvalid(f"--out {out} lies in no folder; make {out.absolute().parent} first")
