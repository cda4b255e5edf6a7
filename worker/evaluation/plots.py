"""
The report's pictures, as SVG text that can stand inside an HTML page. The only room that touches matplotlib.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm
from sklearn.decomposition import PCA
from sklearn.metrics import roc_curve

from worker.evaluation.evaluation import Evaluation, is_head
from worker.evaluation.measures import ScoreColumn, logistic, reliability, risk_coverage
from worker.evaluation.scores import FUSED
from worker.heads.features import Column

REAL_COLOUR: Final = "#2a6f97"
MADE_COLOUR: Final = "#c1440e"
_FAINT: Final = "#999999"
_MOST_GENERATORS: Final = 30
_SALT: Final = "touchstone"


def plots(found: Evaluation) -> dict[str, str]:
    """
    Every plot by its title, in the order of the report.
    """
    drawn = {
        "ROC": _figure(lambda axes: _roc(axes, found)),
        "DET": _figure(lambda axes: _det(axes, found)),
        "Reliability of the fused probability": _figure(lambda axes: _reliability(axes, found)),
        "Risk and coverage": _figure(lambda axes: _risk(axes, found)),
        "Recall per generator": _figure(lambda axes: _generators(axes, found), tall=True),
        "Embedding map of the judged pictures (two principal components)": _figure(lambda axes: _map(axes, found)),
    }
    if found.sweep:
        drawn["Robustness at the clean threshold"] = _figure(lambda axes: _robustness(axes, found), tall=True)
    if found.teaching.curves:
        drawn["Teaching a new generator"] = _figure(lambda axes: _teaching(axes, found))
    return drawn


def _figure(draw: Callable[[Axes], None], *, tall: bool = False) -> str:
    # Never through pyplot: it keeps figures alive and looks for a display.
    figure = Figure(figsize=(6.2, 6.8 if tall else 4.4), layout="constrained")
    draw(figure.add_subplot())
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": _SALT, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    # Prolog and metadata name addresses outside of the page, and nothing in a page needs them.
    return re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)


def _compared(found: Evaluation) -> list[ScoreColumn]:
    columns = found.judged.columns
    others = [name for name in ("knn", "min_distance_k1", "control") if name in columns]
    peers = [name for name in columns if name.startswith("peer:")]
    heads = [name for name in columns if is_head(name) and name != "knn"]
    best = sorted(heads, key=lambda name: -(found.measures[name].ap.value or 0))[:1]
    return [columns[name] for name in (FUSED, *others, *best, *peers)]


def _roc(axes: Axes, found: Evaluation) -> None:
    for column in _compared(found):
        false, true, _ = roc_curve(found.judged.positive, column.filled)
        axes.plot(false, true, label=column.name, linewidth=2.4 if column.name == FUSED else 1.1)
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8, linestyle=":")
    axes.set_xlabel("false-positive rate")
    axes.set_ylabel("true-positive rate")
    axes.legend(fontsize=8)


def _det(axes: Axes, found: Evaluation) -> None:
    ticks = np.array([0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95])
    for column in _compared(found):
        false, true, _ = roc_curve(found.judged.positive, column.filled)
        inside = (false > 0) & (true < 1)
        axes.plot(norm.ppf(false[inside]), norm.ppf(1 - true[inside]), label=column.name, linewidth=1.4)
    names = [f"{tick:.0%}" for tick in ticks]
    axes.set_xticks(norm.ppf(ticks), names)
    axes.set_yticks(norm.ppf(ticks), names)
    axes.set_xlabel("false-positive rate")
    axes.set_ylabel("missed generated pictures")
    axes.legend(fontsize=8)


def _reliability(axes: Axes, found: Evaluation) -> None:
    bins = reliability(found.judged.positive, logistic(found.judged.columns[FUSED].filled))
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8, linestyle=":")
    axes.plot([said.mean() for said, _ in bins], [true.mean() for _, true in bins], "o-", color=MADE_COLOUR)
    axes.set_xlabel("probability that was stated (bins of equally many pictures)")
    axes.set_ylabel("share of generated pictures")


def _risk(axes: Axes, found: Evaluation) -> None:
    coverage, risk = risk_coverage(found.judged.positive, found.judged.columns[FUSED].filled)
    axes.plot(coverage, risk, color=MADE_COLOUR)
    axes.set_xlabel("share of pictures decided, the most confident first")
    axes.set_ylabel("share of those decided wrongly")
    axes.set_ylim(bottom=0)


def _generators(axes: Axes, found: Evaluation) -> None:
    rows = sorted(found.measures[FUSED].generators, key=lambda row: -row.pictures)[:_MOST_GENERATORS][::-1]
    _bars(axes, [f"{row.name} ({row.pictures})" for row in rows], np.array([row.recall for row in rows]))
    axes.set_xlabel("share told at the threshold (pictures in brackets)")


def _robustness(axes: Axes, found: Evaluation) -> None:
    rows = found.sweep
    at = np.arange(len(rows))
    for name, colour, values in (
        ("told (TPR)", MADE_COLOUR, [row.tpr for row in rows]),
        ("false positives (FPR)", REAL_COLOUR, [row.fpr for row in rows]),
        ("average precision", _FAINT, [row.ap for row in rows]),
    ):
        axes.plot(
            np.array([np.nan if value is None else value for value in values]), at, "o-", label=name, color=colour
        )
    axes.set_yticks(at, [row.name for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.legend(fontsize=8)


def _teaching(axes: Axes, found: Evaluation) -> None:
    for curve in found.teaching.curves:
        taught = np.array([step.taught for step in curve.steps])
        told, cleared = (
            np.array([np.nan if value is None else value for value in values])
            for values in ([step.recall for step in curve.steps], [step.real_accuracy for step in curve.steps])
        )
        (line,) = axes.plot(taught, told, "o-", label=f"{curve.generator} ({curve.judged} judged)")
        axes.plot(taught, cleared, ":", color=line.get_color(), linewidth=1)
    axes.set_xlabel("pictures of it among the references")
    axes.set_ylabel("recall on its others (dotted: reals cleared)")
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=8)


def _map(axes: Axes, found: Evaluation) -> None:
    unit, positive = found.judged.unit, found.judged.positive
    if min(unit.shape) < 2:  # noqa: PLR2004 - two axes
        return
    place = PCA(n_components=2, random_state=0).fit_transform(unit)
    for label, colour, name in ((False, REAL_COLOUR, "real"), (True, MADE_COLOUR, "generated")):
        across, up = place[positive == label].T
        axes.scatter(across, up, s=9, color=colour, label=name, alpha=0.7, linewidths=0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(fontsize=8)


def _bars(axes: Axes, names: Sequence[str], values: Column) -> None:
    axes.barh(np.arange(len(names)), values, color=MADE_COLOUR)
    axes.set_yticks(np.arange(len(names)), names, fontsize=7)
    axes.set_xlim(0, 1)
