"""
A benchmark's picture: rates with their spread, and CPU time beside, as one SVG file that needs nothing else.

The only file of this room that touches matplotlib. What is drawn comes in as numbers.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

RATE_COLOUR: Final = "#2a6f97"
CPU_COLOUR: Final = "#c1440e"
_HEADROOM: Final = 1.1


@dataclass(frozen=True, slots=True)
class Bar:
    """
    One value that was tried: its place on the axis, uploads per second (median, lowest, highest), CPU per upload in ms.
    """

    at: float
    per_s: float
    lowest_per_s: float
    highest_per_s: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Panel:
    """
    One axis: what was changed, in words, and what each value came to.
    """

    changed: str
    bars: Sequence[Bar]


def rates_svg(title: str, panels: Sequence[Panel]) -> str:
    """
    The panels side by side: rate on the left axis, CPU time on the right one, values on a logarithmic scale.
    """
    # Never through pyplot: it keeps figures alive and looks for a display.
    figure = Figure(figsize=(5.4 * len(panels), 4.0), layout="constrained")
    figure.suptitle(_plain(title), fontsize=10)
    for number, panel in enumerate(panels, 1):
        _draw(figure.add_subplot(1, len(panels), number), panel)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "touchstone", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _draw(axes: Axes, panel: Panel) -> None:
    bars = sorted(panel.bars, key=lambda bar: bar.at)
    at = [bar.at for bar in bars]
    below = [bar.per_s - bar.lowest_per_s for bar in bars]
    above = [bar.highest_per_s - bar.per_s for bar in bars]
    axes.errorbar(at, [bar.per_s for bar in bars], [below, above], color=RATE_COLOUR, marker="o", capsize=3)
    axes.set_xscale("log")
    axes.set_xticks(at, [f"{value:g}" if value == round(value) else f"{value:.1g}" for value in at])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(_plain(panel.changed))
    axes.set_ylabel("uploads per second", color=RATE_COLOUR)
    axes.set_ylim(0, _HEADROOM * max(bar.highest_per_s for bar in bars))
    right = axes.twinx()
    right.plot(at, [bar.cpu_ms for bar in bars], color=CPU_COLOUR, marker="s", linestyle="--", linewidth=1)
    right.set_ylabel("CPU ms per upload", color=CPU_COLOUR)
    right.set_ylim(0, _HEADROOM * max(bar.cpu_ms for bar in bars))


def _plain(text: str) -> str:
    # A model's name is anybody's text; between dollars matplotlib would read mathematics.
    return text.replace("$", r"\$")
