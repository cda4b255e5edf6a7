"""
The numbers of a bank's references, column by column: as ``vectors.safetensors`` and the workshop's parts hold them.

Shapes, values and joining only; files are read and written in ``worker.bank.files`` and ``worker.bank.workshop``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.heads.features import REALISM, SHIFT, Matrix
from worker.views import ViewSpec

Half = NDArray[np.float16]
Single = NDArray[np.float32]
Owners = NDArray[np.int32]

NORM_TOLERANCE: Final = 1e-3
"""As ``worker.domain.Embedding``: rounding to float16 moves a norm by less."""

_ROWS_AT_ONCE: Final = 2_048
"""In single precision these stay in the processor's cache; more would be fresh memory, at twice the cost."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredVectors:
    """
    What was measured of n references, in the order of their entries.

    ``vectors`` float16[n, d]: the global view, of length 1. ``native`` float16[m, d]: native-resolution crops, of
    length 1; ``native_owner`` int32[m], ascending: the row of ``vectors`` that each belongs to. ``norms`` float32[n]:
    length of the raw features of the global view. ``realism`` float32[n, 5] and ``shift`` float32[n, 3], NaN where they
    were not measured.
    """

    vectors: Half = field(repr=False)
    native: Half = field(repr=False)
    native_owner: Owners = field(repr=False)
    norms: Single = field(repr=False)
    realism: Single = field(repr=False)
    shift: Single = field(repr=False)

    def __len__(self) -> int:
        return len(self.vectors)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """
        The columns by the names under which they are stored.
        """
        return {
            "vectors": np.ascontiguousarray(self.vectors),
            "native": np.ascontiguousarray(self.native),
            "native_owner": np.ascontiguousarray(self.native_owner),
            "norms": np.ascontiguousarray(self.norms),
            "realism": np.ascontiguousarray(self.realism),
            "shift": np.ascontiguousarray(self.shift),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """
    What was measured of one reference: as a row of ``StoredVectors``, with its ``native`` crops float16[crops, d].
    """

    vector: Half = field(repr=False)
    native: Half = field(repr=False)
    norm: float
    realism: Single = field(repr=False)
    shift: Single = field(repr=False)


def not_measured(columns: int) -> Single:
    """
    The row of statistics that were not asked for.
    """
    return np.full(columns, np.nan, dtype=np.float32)


def stacked(rows: Sequence[Measured], dim: int) -> StoredVectors:
    """
    Single references, one below the other; ``dim`` tells the width where there are none.
    """
    crops = [len(row.native) for row in rows]
    return StoredVectors(
        vectors=np.concatenate([np.empty((0, dim), np.float16), *(row.vector[None] for row in rows)]),
        native=np.concatenate([np.empty((0, dim), np.float16), *(row.native for row in rows)]),
        native_owner=np.repeat(np.arange(len(rows), dtype=np.int32), crops),
        norms=np.array([row.norm for row in rows], dtype=np.float32),
        realism=np.concatenate([np.empty((0, len(REALISM)), np.float32), *(row.realism[None] for row in rows)]),
        shift=np.concatenate([np.empty((0, len(SHIFT)), np.float32), *(row.shift[None] for row in rows)]),
    )


def joined(first: StoredVectors, second: StoredVectors) -> StoredVectors:
    """
    The references of one, and below them those of another.
    """
    return StoredVectors(
        vectors=np.concatenate([first.vectors, second.vectors]),
        native=np.concatenate([first.native, second.native]),
        native_owner=np.concatenate([first.native_owner, second.native_owner + np.int32(len(first))]),
        norms=np.concatenate([first.norms, second.norms]),
        realism=np.concatenate([first.realism, second.realism]),
        shift=np.concatenate([first.shift, second.shift]),
    )


def single_rows(stored: StoredVectors) -> Iterator[Measured]:
    """
    The references one by one, in order.
    """
    owners = np.arange(len(stored))
    starts = np.searchsorted(stored.native_owner, owners, side="left")
    ends = np.searchsorted(stored.native_owner, owners, side="right")
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        yield Measured(
            stored.vectors[row],
            stored.native[start:end],
            float(stored.norms[row]),
            stored.realism[row],
            stored.shift[row],
        )


def unit_rows(rows: Half | Single) -> Matrix:
    """
    The rows in single precision and of length 1: rounding to half moved their lengths, and a product is no cosine then.
    """
    single = rows.astype(np.float32)
    single /= np.linalg.norm(single, axis=1, keepdims=True)
    return single


def row_bytes(dim: int, native_crops: int) -> int:
    """
    What one reference with so many crops takes in a file.
    """
    single = np.dtype(np.float32).itemsize
    half, owner = np.dtype(np.float16).itemsize * dim, np.dtype(np.int32).itemsize
    return half + single * (1 + len(REALISM) + len(SHIFT)) + native_crops * (half + owner)


def shape_problems(tensors: Mapping[str, NDArray[Any]], count: int, dim: int) -> list[str]:
    """
    Every column that is missing, or not of the type and shape that ``count`` references in ``dim`` dimensions have.
    """
    owners = tensors.get("native_owner")
    crops = len(owners) if owners is not None and owners.ndim == 1 else 0
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {
        "vectors": ("float16", (count, dim)),
        "native": ("float16", (crops, dim)),
        "native_owner": ("int32", (crops,)),
        "norms": ("float32", (count,)),
        "realism": ("float32", (count, len(REALISM))),
        "shift": ("float32", (count, len(SHIFT))),
    }
    found = {name: (str(tensor.dtype), tensor.shape) for name, tensor in tensors.items()}
    return [
        f"{name} is {described(tensors.get(name))}, expected {dtype}{list(shape)}"
        for name, (dtype, shape) in wanted.items()
        if found.get(name) != (dtype, shape)
    ]


def from_tensors(tensors: Mapping[str, NDArray[Any]]) -> StoredVectors:
    """
    The columns of tensors in which ``shape_problems`` found nothing.
    """
    return StoredVectors(**{column.name: tensors[column.name] for column in fields(StoredVectors)})


def value_problems(stored: StoredVectors, views: ViewSpec) -> Iterator[str]:
    """
    Every column whose numbers cannot be true, or that holds what the views do not ask for.
    """
    yield from _length_problems("vectors", stored.vectors)
    yield from _length_problems("native", stored.native)
    yield from _owner_problems(stored, views)
    if len(bad := np.flatnonzero(~(np.isfinite(stored.norms) & (stored.norms > 0)))):
        first = int(bad[0])
        yield f"{len(bad)} norms are not finite and above 0; the first, row {first}, is {stored.norms[first]:.6g}"
    for name, column, asked in (
        ("realism", stored.realism, views.realism),
        ("shift", stored.shift, views.perturbation),
    ):
        if len(bad := np.flatnonzero(np.isinf(column).any(axis=1))):
            yield f"{name} is infinite in {len(bad)} rows, the first is row {int(bad[0])}"
        if not asked and len(bad := np.flatnonzero(~np.isnan(column).all(axis=1))):
            yield f"{name} is given in {len(bad)} rows, although the views of the bank do not measure it"


def described(tensor: NDArray[Any] | None) -> str:
    """
    Type and shape in words.
    """
    return "missing" if tensor is None else f"{tensor.dtype}{list(tensor.shape)}"


def _owner_problems(stored: StoredVectors, views: ViewSpec) -> Iterator[str]:
    owners = stored.native_owner
    if not len(owners):
        return
    if np.any(np.diff(owners) < 0) or owners[0] < 0 or owners[-1] >= len(stored):
        yield f"native_owner is not ascending between 0 and {len(stored) - 1}"
        return
    most = int(np.bincount(owners).max())
    if most > views.native_crops:
        yield f"native holds up to {most} crops of one reference, the views of the bank say {views.native_crops}"


def _length_problems(name: str, rows: Half) -> Iterator[str]:
    found: list[tuple[int, float]] = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        single = rows[start : start + _ROWS_AT_ONCE].astype(np.float32)
        norms = np.sqrt(np.einsum("ij,ij->i", single, single))
        # Not-a-number compares false with everything, so it must fail the question that a good norm passes.
        bad = np.flatnonzero(~(np.abs(norms - 1.0) < NORM_TOLERANCE))
        found.extend((start + int(row), float(norms[row])) for row in bad)
    if found:
        row, norm = found[0]
        yield f"{len(found)} {name} are not of norm 1; the first, row {row}, has norm {norm:.6g}"
