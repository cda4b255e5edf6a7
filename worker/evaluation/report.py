"""
The evaluation as one HTML file that needs nothing beside it: tables, plots, and thumbnails inside the page.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from worker.evaluation.evaluation import Evaluation, Shown
from worker.evaluation.pictures import thumbnail
from worker.evaluation.plots import plots
from worker.evaluation.tables import (
    FALSE_POSITIVE_COLUMNS,
    INTERVALS_NOTE,
    MEAN_AP,
    MEAN_AUROC,
    closing,
    false_positive_rows,
    heading,
    interval,
    shipped_lines,
    teaching_lines,
)

THUMBNAIL_PX: Final = 176
NEIGHBOUR_PX: Final = 88
MOST_SHOWN: Final = 24

COLUMNS: Final = (
    "",
    "AP",
    "AUROC",
    MEAN_AP,
    MEAN_AUROC,
    "balanced accuracy at even odds",
    "real accuracy",
    "fake accuracy",
    "TPR at FPR 5 %",
    "TPR at FPR 1 %",
    "TPR at FPR 0.1 %",
    "ECE",
    "Brier",
    "worst generator",
    "AP, files as they were",
    "fused better? AP",
    "fused better? mean AP",
    "fused better? accuracy",
)


@dataclass(frozen=True, slots=True)
class _Thumbnail:
    data: str
    caption: str
    neighbours: "tuple[_Thumbnail, ...]" = ()


def write_report(found: Evaluation, out: Path) -> None:
    """
    Put the report at ``out``, in one step; its folder must be there.
    """
    draft = out.with_name(f".{out.name}.draft")
    draft.write_text(report_html(found), encoding="utf-8")
    draft.replace(out)


def report_html(found: Evaluation) -> str:
    """
    The whole page. What comes from the data set, names of files above all, is escaped.
    """
    environment = Environment(
        loader=PackageLoader("worker.evaluation", package_path="."),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters["number"] = _number
    # The plots are ours, made of paths and escaped text; everything else goes through autoescape.
    drawn = {title: Markup(svg) for title, svg in plots(found).items()}  # noqa: S704 - matplotlib escapes its text
    return environment.get_template("report.html.jinja").render(
        found=found,
        heading=list(heading(found)),
        closing=[INTERVALS_NOTE, *shipped_lines(found), *closing(found), *teaching_lines(found.teaching)],
        columns=COLUMNS,
        rows=_rows(found),
        false_positive_columns=FALSE_POSITIVE_COLUMNS,
        false_positives=false_positive_rows(found),
        plots=drawn,
        shown=[_shown(one) for one in found.shown[:MOST_SHOWN]],
    )


def _rows(found: Evaluation) -> list[list[str]]:
    compared = {row.name: row for row in found.comparisons}
    rows = []
    for name, one in found.measures.items():
        before, row = found.originals.get(name), compared.get(name)
        rows.append(
            [
                name,
                *map(interval, (one.ap, one.auroc, one.mean_ap, one.mean_auroc, one.balanced_accuracy)),
                interval(one.real_accuracy),
                interval(one.fake_accuracy),
                *("too few reals" if value is None else _number(value) for value in one.tpr_at.values()),
                _number(one.ece),
                _number(one.brier),
                "-" if one.worst is None else f"{one.worst.name} {one.worst.recall:.0%} of {one.worst.pictures}",
                "-" if before is None else interval(before.ap),
                *(("", "", "") if row is None else (row.better_ap, row.better_mean_ap, row.better_accuracy)),
            ]
        )
    return rows


def _shown(one: Shown) -> _Thumbnail:
    label = "generated" if one.positive else "real"
    return _Thumbnail(
        _inline(one.path, THUMBNAIL_PX),
        f"{one.name}: {label}, probability of generated {one.probability:.0%}",
        tuple(
            _Thumbnail(
                _inline(path, NEIGHBOUR_PX), f"{name}: {'generated' if positive else 'real'}, cosine {cosine:.3f}"
            )
            for path, name, positive, cosine in one.neighbours
        ),
    )


def _inline(path: Path, side_px: int) -> str:
    data = thumbnail(path, side_px)
    return "" if data is None else base64.b64encode(data).decode("ascii")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
