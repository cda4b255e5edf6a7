"""
``touchstone scan``: files in, verdicts out, through the same pipeline and without servers.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from schemas.verdict import ImageVerdictV1
from worker.cli.options import settings_options
from worker.domain import Message
from worker.errors import EXIT_FOUND
from worker.settings.load import LoadedSettings
from worker.telemetry.log import configure_logging

SURFACE = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

COLOURS = {"decided": "green", "abstained": "yellow", "failed": "red"}


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--surface", help="Surface of the policy to judge under; default: the policy's own.")
@click.option("--json", "as_json", is_flag=True, help="One verdict per line, as published to Kafka.")
@click.option("--verbose", is_flag=True, help="Log as the worker does, not only warnings.")
@settings_options
def scan(paths: tuple[Path, ...], surface: str | None, *, as_json: bool, verbose: bool, loaded: LoadedSettings) -> int:
    """
    Judge files, or all files below folders; one verdict per file, also for files that fail.

    Exit code 1 when any file failed.
    """
    from worker.adapters.file_source import list_files  # noqa: PLC0415 - likewise
    from worker.app import scan_files  # noqa: PLC0415 - torch takes seconds to import; --help must not

    if surface is not None and re.fullmatch(SURFACE, surface) is None:
        raise click.BadParameter(f"{surface!r} is no name of a surface", param_hint="--surface")
    if not verbose:
        configure_logging(loaded.settings.log.model_copy(update={"level": "error"}))
    files = list_files(paths)
    verdicts: list[ImageVerdictV1] = []
    with _progress(len(files), shown=not as_json) as progress:
        task = progress.add_task("judging", total=len(files))

        def write(message: Message) -> None:
            if as_json:
                sys.stdout.buffer.write(message.value + b"\n")
                sys.stdout.buffer.flush()
            verdicts.append(ImageVerdictV1.model_validate_json(message.value))
            progress.advance(task)

        report = scan_files(loaded.settings, files, surface=surface, write=write)
    if not as_json:
        _show(verdicts)
    return EXIT_FOUND if report.by_status["failed"] else 0


def _progress(total: int, *, shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal and total))


def _show(verdicts: list[ImageVerdictV1]) -> None:
    console = Console()
    console.print(verdict_table(verdicts))
    counts = Counter(verdict.outcome.status for verdict in verdicts)
    console.print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))


def verdict_table(verdicts: Sequence[ImageVerdictV1]) -> Table:
    """
    One row per verdict. Where a fitted judgement decided: probability, p-value and generator; else the vote's score.
    """
    fused = any(verdict.thresholds.rule == "fused" for verdict in verdicts)
    table = Table(title=f"{len(verdicts)} verdicts")
    measured = ("probability", "p-value", "generator") if fused else ("score",)
    for column in ("file", "decision", *measured, "action", "why", "nearest reference"):
        table.add_column(column, overflow="fold")
    places = [Path(os.path.abspath(verdict.content_id)) for verdict in verdicts]  # noqa: PTH100 - links stay as typed
    above = os.path.commonpath([place.parent for place in places]) if places else ""
    for place, verdict in zip(places, verdicts, strict=True):
        outcome = verdict.outcome
        neighbours = verdict.evidence.neighbours if verdict.evidence else ()
        table.add_row(
            plain(str(place.relative_to(above))),
            Text(plain(outcome.decision or outcome.status).plain, COLOURS[outcome.status]),
            *(_calibrated_cells(verdict) if fused else ("" if outcome.score is None else f"{outcome.score:.3f}",)),
            outcome.action,
            verdict.error.code if verdict.error else outcome.reasons[0].code,
            plain(f"{neighbours[0].entry_id} ({neighbours[0].similarity:.3f})" if neighbours else ""),
        )
    return table


def _calibrated_cells(verdict: ImageVerdictV1) -> tuple[str | Text, ...]:
    probability, calibration, attribution = verdict.outcome.probability, verdict.calibration, verdict.attribution
    if probability is None or calibration is None or attribution is None:
        return ("", "", "")
    return (
        f"{probability:.3f}",
        f"{calibration.p_value:.3g}",
        plain(f"{attribution.generator or 'unknown'} ({attribution.probability:.2f})"),
    )


def plain(text: str) -> Text:
    """
    Text for a terminal from a source that one does not trust, such as a file's name: no markup, no control codes.
    """
    return Text("".join(character if character.isprintable() else "\ufffd" for character in text))
