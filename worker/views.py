"""
What is looked at of a picture: the global view at the encoder's input size, native-resolution crops, and statistics.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from schemas.verdict import ImageFacts
from worker.domain import ContentHash, Pixels, Sighting
from worker.fingerprint import canonical_sha256

VIEW_RULES: Final = "touchstone-views-1"
"""Raise it when a crop would fall elsewhere or a statistic come out otherwise."""


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """
    What is looked at of every picture beside the global view: stated by a bank, followed by whoever asks it.

    ``native_crops``: at most so many crops of the encoder's input size, cut without resizing (fewer where a picture is
    too small to have so many that differ). ``realism``: the five statistics of the Image Realism Score.
    ``perturbation``: the embedding shift of perturbed copies; of references always, of uploads only in the grey zone.
    ``max_side_px``: a longer picture is first reduced to it; ``reencode_quality``: then every picture, whatever its
    format was, goes through one JPEG of this quality, so that format and its damage tell nothing of the label.
    """

    native_crops: int = 0
    realism: bool = False
    perturbation: bool = False
    max_side_px: int | None = None
    reencode_quality: int | None = None

    @property
    def sha256(self) -> str:
        """
        Identifies what sightings under this spec hold, the version of the rules by which crops are cut included.
        """
        return canonical_sha256(
            {
                "rules": VIEW_RULES,
                "native_crops": self.native_crops,
                "realism": self.realism,
                "max_side_px": self.max_side_px,
                "reencode_quality": self.reencode_quality,
            }
        )


GLOBAL_ONLY: Final = ViewSpec()


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """
    What a decoder makes of bytes.

    ``pixels``: the global view, uint8[size, size, 3], RGB, before normalisation. ``native``: crops of the same shape,
    the middle one first. ``realism``: the five statistics in the order of ``worker.heads.features.REALISM``.
    This is the first look at the picture. ``further`` are the others, in the order of ``facts.frames_scored`` after its
    first: other frames of an animation, and a frame on grey behind the same frame on white. Each has the same facts.
    """

    pixels: Pixels = field(repr=False)
    facts: ImageFacts
    native: tuple[Pixels, ...] = field(default=(), repr=False)
    realism: tuple[float, ...] | None = None
    further: "tuple[DecodedPicture, ...]" = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if any(look.further or look.facts != self.facts for look in self.further):
            raise ValueError("a further look has looks of its own or other facts, want one look at the same picture")
        for pixels in (self.pixels, *self.native):
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:  # noqa: PLR2004 - H, W, RGB
                raise ValueError(f"pixels are {pixels.dtype}{list(pixels.shape)}, want uint8[size, size, 3]")

    @property
    def looks(self) -> "tuple[DecodedPicture, ...]":
        """
        All looks at the picture, this one first; only this one's ``further`` is filled.
        """
        return (self, *self.further)


@dataclass(frozen=True, slots=True)
class Undecoded:
    """
    A JPEG of which all is known but its pixels, which a device makes of the first ``jpeg_bytes`` of its bytes.

    ``facts`` are those that decoding finds, but for the perceptual hash. One look shows all of it.
    """

    facts: ImageFacts
    jpeg_bytes: int


@dataclass(frozen=True, slots=True)
class Picture:
    """
    A decoded picture on its way to the encoder.
    """

    content_hash: ContentHash
    decoded: DecodedPicture
    decode_ms: float


def has_shift(sighting: Sighting) -> bool:
    """
    Whether the shift was measured of any look.
    """
    return any(look.shift is not None for look in sighting.looks)


def with_shift_where(sighting: Sighting, wants: Sequence[bool]) -> Sighting:
    """
    The sighting less the shift of those of its looks for which it is not wanted; itself where there is none to remove.
    """
    first, *further = [
        look if wanted or look.shift is None else replace(look, shift=None)
        for look, wanted in zip(sighting.looks, wants, strict=True)
    ]
    return replace(first, further=tuple(further)) if further else first
