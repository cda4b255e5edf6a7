"""
``touchstone scan``: files in, verdicts out, through the same pipeline and without servers.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from schemas.verdict import ImageVerdictV1
from worker.cli.options import settings_options
from worker.errors import EXIT_FOUND
from worker.outcomes import Message
from worker.settings.load import LoadedSettings
from worker.telemetry.log import configure_logging

SURFACE = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

COLOURS = {"decided": "green", "abstained": "yellow", "failed": "red"}

SPARED: Final = ("nearest reference", "action", "p-value", "generator", "why")
"""What a narrow terminal is not shown, the first to go first."""

FOLDED: Final = {"file": 20, "nearest reference": 24}
"""Columns whose cells may go over several lines, and how narrow they may become; names have no words to break."""

_FRAME_CELLS: Final = 3
"""A border and a blank on either side of each column."""


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
    from worker.scanning import scan_files  # noqa: PLC0415 - torch takes seconds to import; --help must not

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
    console.print(verdict_table(verdicts, width=console.width))
    counts = Counter(verdict.outcome.status for verdict in verdicts)
    console.print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))


def verdict_table(verdicts: Sequence[ImageVerdictV1], *, width: int | None = None) -> Table:
    """
    One row per verdict. Where a fitted judgement decided: probability, p-value and generator; else the vote's score.

    On a terminal of ``width`` cells no word is broken to make room: columns are left out, in the order of ``SPARED``,
    and the caption names them. File, decision and the number that decided always stay.
    """
    fused = any(verdict.thresholds.rule == "fused" for verdict in verdicts)
    places = [Path(os.path.abspath(verdict.content_id)) for verdict in verdicts]  # noqa: PTH100 - links stay as typed
    above = os.path.commonpath([place.parent for place in places]) if places else ""
    rows = [
        (plain(str(place.relative_to(above))), *_cells(verdict, fused=fused))
        for place, verdict in zip(places, verdicts, strict=True)
    ]
    measured = ("probability", "p-value", "generator") if fused else ("score",)
    names = ("file", "decision", *measured, "action", "why", "nearest reference")
    columns = dict(zip(names, zip(*rows, strict=True) if rows else ((),) * len(names), strict=True))
    shown = columns if width is None else _fitting(columns, width)
    left_out = [name for name in columns if name not in shown]
    caption = f"not shown at this width: {', '.join(left_out)}; --json has all" if left_out else None
    table = Table(title=f"{len(verdicts)} verdicts", caption=caption)
    for name in shown:
        table.add_column(name, overflow="fold", no_wrap=name not in FOLDED)
    for row in zip(*shown.values(), strict=True):
        table.add_row(*row)
    return table


def _cells(verdict: ImageVerdictV1, *, fused: bool) -> tuple[Text, ...]:
    """
    A row, but for the file.
    """
    outcome = verdict.outcome
    neighbours = verdict.evidence.neighbours if verdict.evidence else ()
    return (
        Text(plain(outcome.decision or outcome.status).plain, COLOURS[outcome.status]),
        *(_calibrated_cells(verdict) if fused else (Text("" if outcome.score is None else f"{outcome.score:.3f}"),)),
        Text(outcome.action),
        Text(verdict.error.code if verdict.error else outcome.reasons[0].code),
        plain(f"{neighbours[0].entry_id} ({neighbours[0].similarity:.3f})" if neighbours else ""),
    )


def _fitting(columns: Mapping[str, Sequence[Text]], width: int) -> dict[str, Sequence[Text]]:
    """
    The columns that a table of this width has room for.
    """
    needed = {name: max(cell_len(name), *(cell.cell_len for cell in cells), 0) for name, cells in columns.items()}
    needed |= {name: min(needed[name], least) for name, least in FOLDED.items()}
    shown = dict(columns)
    for name in SPARED:
        if sum(needed[one] + _FRAME_CELLS for one in shown) + 1 <= width:
            break
        shown.pop(name, None)
    return shown


def _calibrated_cells(verdict: ImageVerdictV1) -> tuple[Text, ...]:
    probability, calibration, attribution = verdict.outcome.probability, verdict.calibration, verdict.attribution
    if probability is None or calibration is None or attribution is None:
        return (Text(), Text(), Text())
    return (
        Text(f"{probability:.3f}"),
        Text(f"{calibration.p_value:.3g}"),
        plain(f"{attribution.generator or 'unknown'} ({attribution.probability:.2f})"),
    )


def plain(text: str) -> Text:
    """
    Text for a terminal from a source that one does not trust, such as a file's name: no markup, no control codes.
    """
    return Text("".join(character if character.isprintable() else "\ufffd" for character in text))
