"""
The review picture: the heat map over the picture, and beside it the crops in the order of their evidence.

Drawing only, with matplotlib's own canvas and no window; what is drawn comes from ``worker/stages/review_picture.py``.
"""

import io
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from worker.heads.heatmap import heat_at
from worker.stages.review_picture import CROPS, Review

WIDTH_PX: Final = 1600
HEIGHT_PX: Final = 1000

_DPI: Final = 100
_SHOWN_SIDE_PX: Final = 1000
_COLOURS: Final = "RdBu_r"
_OPACITY: Final = 0.45
_LEAST_SCALE: Final = 1.0
"""Log-odds at the ends of the scale, at least: what is weak everywhere shall look weak everywhere."""


def review_png(review: Review, found: Mapping[str, Any], *, title: str, reading: str) -> bytes:
    """
    A PNG of ``WIDTH_PX`` x ``HEIGHT_PX``; ``found`` is what ``touchstone explain --json`` prints of the review.

    ``reading`` says in the legend by what the tiles were judged.
    """
    figure = Figure(figsize=(WIDTH_PX / _DPI, HEIGHT_PX / _DPI), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(11, 10))[0]
    bound = max(_LEAST_SCALE, float(np.nanmax(np.abs(review.evidence))))
    scale = Normalize(-bound, bound)
    height, width = review.picture.shape[:2]
    stacked = (2, 1) if width >= height else (1, 2)
    plain, warm = left.subplots(*stacked, squeeze=False).ravel()
    _draw_picture(plain, warm, review, scale)
    plain.set_title(title[:60], parse_math=False)
    bar = left.colorbar(ScalarMappable(scale, _COLOURS), ax=[plain, warm], orientation="horizontal", shrink=0.8)
    bar.set_label(
        f"evidence for {found['positive']} in log-odds, by each tile's nearest references ({review.view} view); "
        f"no part of a verdict\n{reading}",
        parse_math=False,
    )
    places = right.subplots(CROPS // 2, 2, squeeze=False).ravel()
    for axes in places:
        axes.set_axis_off()
    for number, (axes, crop) in enumerate(zip(places, found["crops"], strict=False), start=1):
        _draw_crop(axes, review, crop, number)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _draw_picture(plain: Axes, warm: Axes, review: Review, scale: Normalize) -> None:
    """
    The picture in its colours with the places of the crops, and in grey under the heat, so that only heat has colour.
    """
    height, width = review.picture.shape[:2]
    shown = Image.fromarray(review.picture)
    shown.thumbnail((_SHOWN_SIDE_PX, _SHOWN_SIDE_PX))
    heat = heat_at(review.evidence, review.grid, picture=(height, width), shape=(shown.height, shown.width))
    extent = (0, width, height, 0)
    plain.imshow(np.asarray(shown), extent=extent)
    warm.imshow(np.asarray(shown.convert("L")), extent=extent, cmap="gray", vmin=0, vmax=255)
    warm.imshow(heat, extent=extent, cmap=_COLOURS, norm=scale, alpha=_OPACITY)
    for number, crop in enumerate(review.crops, start=1):
        left, top, right, bottom = review.grid.boxes[crop.tile]
        plain.add_patch(
            Rectangle(
                (left, top),
                right - left,
                bottom - top,
                fill=False,
                edgecolor="black",
                linewidth=3 if number == 1 else 1,
            )
        )
        plain.text(left, top, str(number), va="top", color="white", backgroundcolor="black", fontsize=9)
    plain.set_axis_off()
    warm.set_axis_off()


def _draw_crop(axes: Axes, review: Review, crop: Mapping[str, Any], number: int) -> None:
    left, top = crop["left"], crop["top"]
    axes.imshow(review.picture[top : top + crop["height"], left : left + crop["width"]], interpolation="nearest")
    axes.set_title(f"{number}: evidence {crop['log_odds']:+.2f} at ({left}, {top})", fontsize=10)
    text = "\n".join(_reference_line(one) for one in crop["references"])
    axes.text(0.5, -0.04, text, transform=axes.transAxes, ha="center", va="top", fontsize=8, parse_math=False)


def _reference_line(reference: Mapping[str, Any]) -> str:
    origin = reference["generator"] or reference["source"] or ""
    line = f"{reference['similarity']:.3f}  {reference['label']}  {origin[:24]}  {reference['entry_id'][:20]}"
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in line)
