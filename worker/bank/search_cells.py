"""
The approximate index that a bank can carry: the columns of ``search.safetensors``, and what they must be.

Numbers only, and plain ones: which cell each reference lies in, and a short code of where in it. Training is
``worker.adapters.faiss_cells``, searching ``faiss_cell_scan``; no file of FAISS is ever read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from worker.bank.manifest import SEARCH, BankManifest
from worker.bank.manifest_checks import most_bytes
from worker.bank.regular_files import FileRefused
from worker.bank.tensor_file import read_tensor_file
from worker.bank.vectors import described
from worker.domain import Label
from worker.errors import BankInvalid
from worker.heads.features import Matrix

CODE_WORDS: Final = 16
"""Each part of a vector is one of so many words: four bits, the size that processors look up all at once."""

MAX_WIDTH: Final = 256
"""Directions that codes are made of: vectors of CLIPs hardly differ in more, and all are compared in the end."""

_PART: Final = 2
_OF_LABEL: Final = ("axes", "centres", "words")
_FILE_MODE: Final = 0o644
_REMEDY: Final = "run `touchstone bank index` again"


@dataclass(frozen=True, slots=True, eq=False)
class LabelCells:
    """
    The cells of one label, in the r directions in which its vectors differ most: ``axes`` float32[d, r].

    ``centres`` float32[c, r] of the cells, and ``words`` float32[m, 16, r / m] of the codes.
    """

    axes: Matrix = field(repr=False)
    centres: Matrix = field(repr=False)
    words: Matrix = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class SearchCells:
    """
    Of every reference, in the order of the entries, its cell int32[n] within its label, and its code uint8[n, m / 2].
    """

    cell: NDArray[np.int32] = field(repr=False)
    codes: NDArray[np.uint8] = field(repr=False)
    labels: Mapping[Label, LabelCells] = field(repr=False)

    def of_rows(self, rows: NDArray[np.int64]) -> "SearchCells":
        """
        The same cells with only these references in them.
        """
        return SearchCells(self.cell[rows], self.codes[rows], self.labels)


def code_width(dim: int) -> int:
    """
    How many directions the codes of vectors of so many dimensions are made of, a multiple of 4; 0 below 4.
    """
    return min(MAX_WIDTH, dim - dim % 4)


def code_parts(dim: int) -> int:
    """
    Into how many parts those directions are cut, an even number; each part has a word of its own.
    """
    return code_width(dim) // _PART


def write_cells(folder: Path, cells: SearchCells) -> None:
    """
    Write ``search.safetensors`` into a folder that is not in place yet.
    """
    tensors = {"cell": cells.cell, "codes": cells.codes}
    for label, of_label in cells.labels.items():
        tensors |= {f"axes.{label}": of_label.axes, f"centres.{label}": of_label.centres}
        tensors[f"words.{label}"] = of_label.words
    save_file({name: np.ascontiguousarray(one) for name, one in tensors.items()}, folder / SEARCH)
    (folder / SEARCH).chmod(_FILE_MODE)


def read_cells(path: Path, manifest: BankManifest, rows_of: Mapping[Label, NDArray[np.int64]]) -> SearchCells | None:
    """
    The cells of the bank at ``path``, every number checked; None where its manifest names none.

    ``rows_of`` are the rows of each label. Raises ``BankInvalid`` naming what was found and what was expected.
    """
    if manifest.search is None:
        return None
    expected = manifest.search.files[SEARCH]
    try:
        read = read_tensor_file(path / SEARCH, most_bytes=most_bytes(SEARCH, manifest))
    except FileRefused as fault:
        raise BankInvalid(f"bank {path}: {SEARCH} {fault}; copy the bank again") from fault
    if read.sha256 != expected:
        raise BankInvalid(f"bank {path}: {SEARCH} has sha256 {read.sha256}, expected {expected}; copy the bank again")
    problems = [read.problem] if read.problem is not None else list(_problems(read.tensors, manifest, rows_of))
    if problems:
        raise BankInvalid("\n".join(f"bank {path}: {SEARCH}: {problem}; {_REMEDY}" for problem in problems))
    return SearchCells(
        read.tensors["cell"],
        read.tensors["codes"],
        {label: LabelCells(*(read.tensors[f"{name}.{label}"] for name in _OF_LABEL)) for label in rows_of},
    )


def _problems(
    tensors: Mapping[str, NDArray[Any]], manifest: BankManifest, rows_of: Mapping[Label, NDArray[np.int64]]
) -> Iterator[str]:
    if manifest.search is None:
        return
    count, dim = manifest.counts.entries, manifest.encoder.dim
    width, parts = code_width(dim), code_parts(dim)
    if not parts:
        yield f"vectors of {dim} dimensions have no codes"
        return
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {
        "cell": ("int32", (count,)),
        "codes": ("uint8", (count, parts // 2)),
    }
    for label in rows_of:
        wanted[f"axes.{label}"] = ("float32", (dim, width))
        wanted[f"centres.{label}"] = ("float32", (manifest.search.cells[label], width))
        wanted[f"words.{label}"] = ("float32", (parts, CODE_WORDS, _PART))
    wrong = [
        f"{name} is {described(tensors.get(name))}, expected {dtype}{list(shape)}"
        for name, (dtype, shape) in wanted.items()
        if name not in tensors or (str(tensors[name].dtype), tensors[name].shape) != (dtype, shape)
    ]
    yield from wrong
    if wrong:
        return
    for label, rows in rows_of.items():
        for name in (f"{kind}.{label}" for kind in _OF_LABEL):
            if not np.isfinite(tensors[name]).all():
                yield f"{name} holds a number that is not finite"
        cell, cells = tensors["cell"][rows], manifest.search.cells[label]
        if len(rows) and not 0 <= int(cell.min()) <= int(cell.max()) < cells:
            yield f"cell of {label} is not between 0 and {cells - 1}"
