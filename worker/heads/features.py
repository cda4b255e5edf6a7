"""
What frozen features say of many pictures at once, and what is known of the references among them. Arrays, no objects.

Everything that a head may look at is a column here; where a column's value was not measured it is NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Column = NDArray[np.float64]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

REALISM: Final = ("canny_edge_density", "glcm_contrast", "glcm_energy", "laplacian_variance", "mean_spectrum")
"""The five statistics of the Image Realism Score (arXiv 2309.14756), in the order of its ring."""

SHIFT: Final = ("noise", "contrastive_blur", "high_frequency")
"""Cosine distances between a picture's embedding and that of its perturbed copies (arXiv 2411.19117, 2603.21619)."""


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTable:
    """
    Features of n pictures.

    ``unit`` float32[n, d]: embeddings of the global view, of length 1. ``norm`` float64[n]: length of the raw features
    before. ``native`` float32[m, d]: embeddings of native-resolution crops, of length 1; ``native_owner`` int64[m],
    ascending: the picture (row of ``unit``) that each crop was cut from; a picture may have none. ``realism``
    float64[n, 5] in the order of ``REALISM``. ``shift`` float64[n, 3] in the order of ``SHIFT``. ``format``: what
    the decoder found, such as ``JPEG``; ``short_side_px`` float64[n].
    """

    unit: Matrix = field(repr=False)
    norm: Column = field(repr=False)
    native: Matrix = field(repr=False)
    native_owner: Rows = field(repr=False)
    realism: Column = field(repr=False)
    shift: Column = field(repr=False)
    format: tuple[str | None, ...] = field(repr=False)
    short_side_px: Column = field(repr=False)

    def __post_init__(self) -> None:
        n, dim = self.unit.shape
        wanted: dict[str, tuple[NDArray[Any], tuple[int, ...]]] = {
            "norm": (self.norm, (n,)),
            "native": (self.native, (len(self.native_owner), dim)),
            "realism": (self.realism, (n, len(REALISM))),
            "shift": (self.shift, (n, len(SHIFT))),
            "short_side_px": (self.short_side_px, (n,)),
        }
        wrong = [
            f"{name} {array.shape}, want {shape}" for name, (array, shape) in wanted.items() if array.shape != shape
        ]
        if len(self.format) != n:
            wrong.append(f"format {len(self.format)}, want {n}")
        if len(self.native_owner) and (np.any(np.diff(self.native_owner) < 0) or self.native_owner[-1] >= n):
            wrong.append("native_owner is not ascending within the pictures")
        if wrong:
            raise ValueError(f"features of {n} pictures with {dim} dimensions: {'; '.join(wrong)}")

    def __len__(self) -> int:
        return len(self.unit)

    @property
    def dim(self) -> int:
        """
        Dimensions of the encoder's space.
        """
        return int(self.unit.shape[1])

    def take(self, rows: Sequence[int] | Rows) -> Self:
        """
        The features of these pictures, in this order, repetitions included.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        starts = np.searchsorted(self.native_owner, wanted, side="left")
        ends = np.searchsorted(self.native_owner, wanted, side="right")
        crops = [np.arange(start, end) for start, end in zip(starts, ends, strict=True)]
        return type(self)(
            unit=self.unit[wanted],
            norm=self.norm[wanted],
            native=self.native[np.concatenate(crops) if crops else np.empty(0, np.int64)],
            native_owner=np.repeat(np.arange(len(wanted), dtype=np.int64), ends - starts),
            realism=self.realism[wanted],
            shift=self.shift[wanted],
            format=tuple(self.format[row] for row in wanted),
            short_side_px=self.short_side_px[wanted],
        )

    def without_shift(self) -> Self:
        """
        The same features as if no perturbed copy had been encoded: what the cheap heads see.
        """
        return type(self)(
            unit=self.unit,
            norm=self.norm,
            native=self.native,
            native_owner=self.native_owner,
            realism=self.realism,
            shift=np.full_like(self.shift, np.nan),
            format=self.format,
            short_side_px=self.short_side_px,
        )


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """
    Labelled pictures: their features, and per picture whether it is of the positive label, by what and from where.

    ``positive`` bool[n]. ``generator`` is None for what no generator made or where it is not known; ``source`` is where
    the picture was collected; ``content`` is the sha256 of its bytes.
    """

    features: FeatureTable
    positive: Mask = field(repr=False)
    generator: tuple[str | None, ...] = field(repr=False)
    source: tuple[str | None, ...] = field(repr=False)
    content: tuple[str, ...] = field(repr=False)

    def __post_init__(self) -> None:
        n = len(self.features)
        found = {len(self.positive), len(self.generator), len(self.source), len(self.content)}
        if found != {n}:
            raise ValueError(f"columns of references have lengths {sorted(found)}, want {n}")

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: Sequence[int] | Rows) -> Self:
        """
        These references, in this order.
        """
        return type(self)(
            features=self.features.take(rows),
            positive=self.positive[np.asarray(rows, dtype=np.int64)],
            generator=tuple(self.generator[row] for row in rows),
            source=tuple(self.source[row] for row in rows),
            content=tuple(self.content[row] for row in rows),
        )


def joined(tables: Sequence[FeatureTable]) -> FeatureTable:
    """
    Several tables of one space, one below the other.
    """
    offsets = np.cumsum([0, *(len(table) for table in tables[:-1])])
    return FeatureTable(
        unit=np.concatenate([table.unit for table in tables]),
        norm=np.concatenate([table.norm for table in tables]),
        native=np.concatenate([table.native for table in tables]),
        native_owner=np.concatenate(
            [table.native_owner + offset for table, offset in zip(tables, offsets, strict=True)]
        ),
        realism=np.concatenate([table.realism for table in tables]),
        shift=np.concatenate([table.shift for table in tables]),
        format=tuple(name for table in tables for name in table.format),
        short_side_px=np.concatenate([table.short_side_px for table in tables]),
    )


def joined_references(parts: Sequence[References]) -> References:
    """
    Several sets of references of one space, one below the other.
    """
    return References(
        features=joined([part.features for part in parts]),
        positive=np.concatenate([part.positive for part in parts]),
        generator=tuple(name for part in parts for name in part.generator),
        source=tuple(name for part in parts for name in part.source),
        content=tuple(name for part in parts for name in part.content),
    )
