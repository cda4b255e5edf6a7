"""
From a decoded picture to the encoder's input size: exactly what open_clip's own transform does, in uint8.

Resizing and cropping only, with Pillow, or nearly the same with a resizer that a spec asks for; colour is
``worker/stages/colour.py``, and ``(x / 255 - mean) / std`` is the encoder's, on its device. Any change that moves a
pixel changes ``RULES_VERSION``, and with it every fingerprint.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from PIL import Image

from worker.domain import PreprocessSpec
from worker.fingerprint import canonical_sha256

RULES_VERSION: Final = "touchstone-decode-1"
"""
The version of the rules of decode, colour and preprocess together.

1: frame 0; EXIF orientation undone; alpha composited on white; 16 bits rescaled; resized; ICC to sRGB; cropped.
"""

MAX_ASPECT: Final = 20
"""
Of a longer picture only the middle is resized: the whole, 224 pixels high, could be gigabytes wide.

The crop that follows shows none of the rest; open_clip resizes it all the same.
"""

MOST_OVERSAMPLING: Final = 8
"""Beyond it hardly a picture is large enough to be reduced."""

Resizer = Callable[[Image.Image, tuple[int, int], Literal["bicubic", "bilinear"]], Image.Image]
"""Brings a picture in mode L, RGB or CMYK to a width and height; only where ``PreprocessSpec.resize`` names it."""

_FILTERS: Final = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def preprocess_spec(config: Mapping[str, object]) -> PreprocessSpec:
    """
    The spec that an open_clip preprocess configuration asks for (``model.visual.preprocess_cfg``).

    ``jpeg_oversampling`` and ``jpeg_decoder`` may stand in it too, which open_clip does not know. Raises ``ValueError``
    for what open_clip's inference transform would not do either, and for inputs not square.
    """
    side = _side(config.get("size", 224))
    resize_mode = config.get("resize_mode") or "shortest"
    if resize_mode not in ("shortest", "longest", "squash"):
        raise ValueError(f"the preprocess resize_mode is {resize_mode!r}, want shortest, longest or squash")
    interpolation = config.get("interpolation") or "bicubic"
    if interpolation not in ("bicubic", "bilinear", "random"):
        raise ValueError(f"the preprocess interpolation is {interpolation!r}, want bicubic or bilinear")
    fill_color = config.get("fill_color") or 0
    if not isinstance(fill_color, int) or not 0 <= fill_color <= 255:  # noqa: PLR2004 - the range of uint8
        raise ValueError(f"the preprocess fill_color is {fill_color!r}, want a number from 0 to 255")
    # "random" is a training augmentation; open_clip takes bicubic for it when it infers.
    taken: Literal["bicubic", "bilinear"] = "bilinear" if interpolation == "bilinear" else "bicubic"
    mean, std = _three(config.get("mean"), "mean"), _three(config.get("std"), "std")
    oversampling = config.get("jpeg_oversampling") or 0
    if not isinstance(oversampling, int) or not 0 <= oversampling <= MOST_OVERSAMPLING:
        raise ValueError(f"the jpeg_oversampling is {oversampling!r}, want a number from 0 to {MOST_OVERSAMPLING}")
    parts = {
        "size": side,
        "resize_mode": resize_mode,
        "interpolation": taken,
        "fill_color": fill_color,
        "mean": mean,
        "std": std,
    }
    # Only where it is set: without it the hash is the one that all banks have.
    rules: dict[str, object] = {"jpeg_oversampling": oversampling} if oversampling else {}
    jpeg_decoder = _jpeg_decoder(config.get("jpeg_decoder"))
    if jpeg_decoder != "pillow":
        rules["jpeg_decoder"] = jpeg_decoder
    resize = config.get("resize") or "pillow"
    if resize not in ("pillow", "torch"):
        raise ValueError(f"the preprocess resize is {resize!r}, want pillow or torch")
    if resize == "torch":
        rules["resize"] = resize
    return PreprocessSpec(
        size=side,
        resize_mode=resize_mode,
        interpolation=taken,
        fill_color=fill_color,
        mean=mean,
        std=std,
        sha256=canonical_sha256({"rules": RULES_VERSION, **parts, **rules}),
        jpeg_oversampling=oversampling,
        jpeg_decoder=jpeg_decoder,
        resize=resize,
    )


@dataclass(frozen=True, slots=True)
class Area:
    """
    Where a picture lies in one that was decoded smaller: ``size`` is its own, in whole pixels of the file.

    ``box`` is left, top, right and bottom in pixels of the smaller one, whose last row and column it may fill in part.
    """

    size: tuple[int, int]
    box: tuple[float, float, float, float]


def resized(
    picture: Image.Image, spec: PreprocessSpec, area: Area | None = None, resizer: Resizer | None = None
) -> Image.Image:
    """
    The picture at the scale of the encoder's input; its sides may still be longer or shorter than ``spec.size``.

    ``area``: of a picture that was decoded smaller, whose sides decide by what they are in the file. ``resizer`` is
    what a spec whose resize is not ``pillow`` needs, and is asked for no other. Raises ``ValueError`` without it.
    """
    if spec.resize != "pillow" and resizer is None:
        raise ValueError(f"the spec resizes with {spec.resize}, and no resizer was given: open one for it")
    resizer = None if spec.resize == "pillow" else resizer
    if area is None:
        picture = picture if spec.resize_mode == "squash" else _without_far_ends(picture)
        return _resize(picture, _resized_size(picture.size, spec), spec, resizer)
    size = _resized_size(area.size, spec)
    if resizer is None or not all(side.is_integer() for side in area.box):
        # No other resizer takes a part that ends within a pixel. It is small already: Pillow is not slow with it.
        return picture.resize(size, _FILTERS[spec.interpolation], box=area.box)
    fills = area.box == (0.0, 0.0, float(picture.width), float(picture.height))
    return _resize(picture if fills else picture.crop(area.box), size, spec, resizer)


def scaling(size: tuple[int, int], spec: PreprocessSpec) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """
    What ``resized`` does to a picture of this width and height: the part that it takes, and the size it brings it to.

    The part is left, top, right and bottom in whole pixels.
    """
    box = (0, 0, *size) if spec.resize_mode == "squash" else _middle(size)
    return box, _resized_size((box[2] - box[0], box[3] - box[1]), spec)


def _resized_size(size: tuple[int, int], spec: PreprocessSpec) -> tuple[int, int]:
    width, height = size
    if spec.resize_mode == "squash":
        return spec.size, spec.size
    if spec.resize_mode == "longest":
        ratio = max(height / spec.size, width / spec.size)
        return max(1, round(width / ratio)), max(1, round(height / ratio))
    long_side = int(spec.size * max(width, height) / min(width, height))
    return (spec.size, long_side) if width <= height else (long_side, spec.size)


def framed(picture: Image.Image, spec: PreprocessSpec) -> Image.Image:
    """
    The middle of a resized picture, ``spec.size`` on each side, padded with ``spec.fill_color`` where it is shorter.
    """
    if picture.width < spec.size or picture.height < spec.size:
        fill = spec.fill_color if len(picture.getbands()) == 1 else (spec.fill_color,) * len(picture.getbands())
        canvas_size = (max(picture.width, spec.size), max(picture.height, spec.size))
        canvas = Image.new(picture.mode, canvas_size, fill)
        canvas.paste(picture, ((canvas.width - picture.width) // 2, (canvas.height - picture.height) // 2))
        picture = canvas
    left = round((picture.width - spec.size) / 2)
    top = round((picture.height - spec.size) / 2)
    return picture.crop((left, top, left + spec.size, top + spec.size))


def _resize(picture: Image.Image, size: tuple[int, int], spec: PreprocessSpec, resizer: Resizer | None) -> Image.Image:
    if picture.size == size:
        return picture
    if resizer is not None:
        return resizer(picture, size, spec.interpolation)
    return picture.resize(size, _FILTERS[spec.interpolation])


def _without_far_ends(picture: Image.Image) -> Image.Image:
    middle = _middle(picture.size)
    return picture if middle == (0, 0, *picture.size) else picture.crop(middle)


def _middle(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """
    Where a picture lies without its far ends, those beyond ``MAX_ASPECT``.
    """
    width, height = size
    most = MAX_ASPECT * min(width, height)
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    return left, top, left + min(width, most), top + min(height, most)


def _side(size: object) -> int:
    sides = set(size) if isinstance(size, Sequence) else {size}
    side = sides.pop()
    if sides or not isinstance(side, int) or side < 1:
        raise ValueError(f"the preprocess size is {size!r}, want one side in pixels: only square inputs are supported")
    return side


def _jpeg_decoder(name: object) -> Literal["pillow", "libjpeg", "nvjpeg"]:
    match name:
        case None:
            return "pillow"
        case "pillow" | "libjpeg" | "nvjpeg":
            return name
        case _:
            raise ValueError(f"the jpeg_decoder is {name!r}, want pillow, libjpeg or nvjpeg")


def _three(value: object, name: str) -> tuple[float, float, float]:
    given = value if isinstance(value, Sequence) else [value] * 3
    numbers = [float(number) for number in given if isinstance(number, int | float)]
    if len(given) != 3 or len(numbers) != 3:  # noqa: PLR2004 - RGB
        raise ValueError(f"the preprocess {name} is {value!r}, want three numbers")
    return numbers[0], numbers[1], numbers[2]
