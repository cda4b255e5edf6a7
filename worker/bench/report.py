"""
How a benchmark tells its results: one JSON object, or a printed table with the same figures.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import click
from rich.console import Console
from rich.table import Table

from worker.bench.measurement import Measured
from worker.bench.targets import Target


@dataclass(frozen=True, slots=True)
class Report:
    """
    What one run of a benchmark found.

    ``summary`` are the keys that come first in the object; ``figures`` all that was measured; ``notes`` what a reader
    must know of this run, such as weights that nobody trained; ``targets`` what some of the figures were to be.
    """

    title: str
    summary: Mapping[str, object]
    figures: Sequence[Measured]
    machine: Mapping[str, object]
    notes: Sequence[str] = field(default=())
    targets: Sequence[Target] = field(default=())

    def as_object(self) -> dict[str, object]:
        """
        One object: the summary's keys on top, then the machine, every figure by its name, targets, and the notes.
        """
        return {
            **self.summary,
            "machine": dict(self.machine),
            "figures": {figure.name: figure.as_object() for figure in self.figures},
            "targets": [target.as_object() for target in self.targets],
            "notes": list(self.notes),
        }


def tell(report: Report, *, as_json: bool) -> None:
    """
    Print the report to standard output.
    """
    if as_json:
        click.echo(json.dumps(report.as_object(), indent=2, allow_nan=False))
        return
    console = Console()
    console.print(_figures(report))
    console.print(_summary(report.summary))
    if report.targets:
        console.print(_targets(report.targets))
    told = report.machine
    console.print(f"{told['cpu']}, {told['cores']} cores, load {told['load_1m']}", highlight=False)
    for note in report.notes:
        console.print(f"note: {note}", highlight=False)


def plain_number(value: float) -> str:
    """
    A figure with as many digits as are worth reading.
    """
    size = abs(value)
    if size >= 1000:  # noqa: PLR2004 - from here on a fraction says nothing
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 100 else f"{value:.3g}"  # noqa: PLR2004 - likewise for a second digit


def _figures(report: Report) -> Table:
    table = Table(title=report.title, title_justify="left")
    for heading in ("figure", "unit", "median", "lowest", "highest", "rounds"):
        table.add_column(heading, justify="left" if heading in {"figure", "unit"} else "right")
    for one in report.figures:
        numbers = (plain_number(one.median), plain_number(one.low), plain_number(one.high), str(one.rounds))
        table.add_row(one.name, one.unit, *numbers)
    return table


def _summary(summary: Mapping[str, object]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in summary.items():
        if isinstance(value, Mapping | list | tuple):
            continue
        table.add_row(name, plain_number(value) if isinstance(value, float) else str(value))
    return table


def _targets(targets: Sequence[Target]) -> Table:
    table = Table(title="targets", title_justify="left")
    for heading in ("figure", "target", "measured", "met"):
        table.add_column(heading, justify="right" if heading in {"target", "measured"} else "left")
    for one in targets:
        table.add_row(one.name, one.asked, "" if one.measured is None else plain_number(one.measured), one.verdict)
    return table
