"""
The comparison as one HTML file that needs nothing beside it: tables, plots, and the worst movers with their neighbours.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from worker.diff.comparison import Comparison, arrow, ranked
from worker.diff.gates import GateResult
from worker.diff.plots import plots
from worker.diff.shifts import score_shift
from worker.diff.versions import version_rows

MOST_SHOWN: Final = 200
"""Flips, and events of one side only, that the page names; JSON names more."""


def write_report(found: Comparison, gates: Sequence[GateResult], out: Path) -> None:
    """
    Put the report at ``out``, in one step; its folder must be there.
    """
    draft = out.with_name(f".{out.name}.draft")
    draft.write_text(report_html(found, gates), encoding="utf-8")
    draft.replace(out)


def report_html(found: Comparison, gates: Sequence[GateResult]) -> str:
    """
    The whole page. What comes from verdicts, ids and names above all, is escaped.
    """
    environment = Environment(
        loader=PackageLoader("worker.diff", package_path="."),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"number": _number, "signed": _signed, "arrow": arrow, "values": _values}
    # The plots are ours, made of paths and escaped text; everything else goes through autoescape.
    drawn = {title: Markup(svg) for title, svg in plots(found).items()}  # noqa: S704 - matplotlib escapes its text
    return environment.get_template("report.html.jinja").render(
        found=found,
        gates=gates,
        shift=score_shift(found),
        versions=version_rows(found),
        groups={"surface": ranked(found.by_surface), "generator": ranked(found.by_generator)},
        transitions=found.overall.transitions.most_common(),
        plots=drawn,
        most_shown=MOST_SHOWN,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


def _values(counts: Mapping[str | int | None, int]) -> str:
    if len(counts) == 1:
        return "-" if None in counts else str(next(iter(counts)))
    return ", ".join(f"{'-' if value is None else value} ({events})" for value, events in counts.items())
