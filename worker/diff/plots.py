"""
The report's pictures, as SVG text that can stand inside an HTML page. The only file of this room with matplotlib.
"""

import io
import re
from collections.abc import Callable
from functools import partial
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from worker.diff.comparison import Comparison, Group, ranked
from worker.diff.shifts import BINS

BEFORE_COLOUR: Final = "#2a6f97"
AFTER_COLOUR: Final = "#c1440e"
_FAINT: Final = "#999999"
_CELLS: Final = 40
_NARROWEST: Final = 1e-3
_MOST_BARS: Final = 25


def plots(found: Comparison) -> dict[str, str]:
    """
    Every plot by its title, in the order of the report; those of scores only where there are scores on both sides.
    """
    drawn: dict[str, Callable[[Axes], None]] = {}
    if len(found.scores_a):
        drawn["How far the scores moved"] = lambda axes: _histogram(axes, found)
        drawn["Score of A and of B"] = lambda axes: _plane(axes, found)
    drawn["Decisions"] = lambda axes: _decisions(axes, found)
    for of_what, groups in (("surface", found.by_surface), ("generator", found.by_generator)):
        flipped = [(name, group) for name, group in ranked(groups) if group.flips][:_MOST_BARS]
        if flipped:
            drawn[f"Share flipped by {of_what}"] = partial(_bars, groups=flipped)
    return {title: _figure(draw) for title, draw in drawn.items()}


def _figure(draw: Callable[[Axes], None]) -> str:
    # Never through pyplot: it keeps figures alive and looks for a display.
    figure = Figure(figsize=(6.2, 4.4), layout="constrained")
    draw(figure.add_subplot())
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "touchstone", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    # Prolog, metadata and names of namespaces are addresses outside of the page, which HTML needs nowhere.
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return re.sub(r"\sxmlns(?::\w+)?=\"[^\"]*\"", "", svg)


def _histogram(axes: Axes, found: Comparison) -> None:
    # As wide as the farthest mover: the bins of JSON, from -1 to 1, would show small shifts as one bar.
    farthest = max(float(np.abs(found.shifts).max()), _NARROWEST)
    counts, edges = np.histogram(found.shifts, bins=BINS, range=(-farthest, farthest))
    axes.stairs(counts, edges, fill=True, color=AFTER_COLOUR)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_xlabel("score of B less score of A")
    axes.set_ylabel("events (logarithmic above 1)")


def _plane(axes: Axes, found: Comparison) -> None:
    cells, across, up = np.histogram2d(found.scores_a, found.scores_b, bins=_CELLS, range=((0, 1), (0, 1)))
    filled = np.ma.masked_equal(np.log10(np.maximum(cells, 1)) + (cells > 0), 0)
    axes.pcolormesh(across, up, filled.T, cmap="YlOrBr", vmin=0)
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8, linestyle=":")
    axes.set_xlabel("score of A")
    axes.set_ylabel("score of B")


def _decisions(axes: Axes, found: Comparison) -> None:
    names = sorted({*found.a.decisions, *found.b.decisions})
    at = np.arange(len(names))
    for side, word, offset, colour in ((found.a, "A", -0.2, BEFORE_COLOUR), (found.b, "B", 0.2, AFTER_COLOUR)):
        axes.barh(at + offset, [side.decisions[name] for name in names], height=0.4, color=colour, label=word)
    axes.set_yticks(at, [_plain(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("events")
    axes.legend(fontsize=8)


def _bars(axes: Axes, groups: list[tuple[str, Group]]) -> None:
    at = np.arange(len(groups))
    axes.barh(at, [group.flips / group.compared for _, group in groups], color=AFTER_COLOUR)
    axes.set_yticks(at, [f"{_plain(name)} ({group.flips} of {group.compared})" for name, group in groups], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)


def _plain(name: str) -> str:
    # A label, surface or generator is a producer's text; between dollars matplotlib would read mathematics.
    return name.replace("$", r"\$")
