"""
A bank directory, read whole and written whole: no part of it is trusted before it was checked.

``manifest.json``, ``vectors.safetensors`` (fp16 ``vectors`` [N, D] in the order of the entries, and ``probe`` [D]),
``entries.jsonl`` (one entry per line) and ``probe.png``. Nothing is pickled and no search index is stored.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from worker.bank.entries import EntryTable, entry_line, read_entries
from worker.bank.manifest import (
    CHECKED_FILES,
    ENTRIES,
    FORMAT_VERSION,
    MANIFEST,
    PROBE,
    VECTORS,
    BankManifest,
    Counts,
    canonical_bytes,
    manifest_sha256,
)
from worker.domain import BankEntry, BankIdentity, Label
from worker.errors import BankInvalid

Half = NDArray[np.float16]

NORM_TOLERANCE: Final = 1e-3
"""As ``worker.domain.Embedding``: rounding to float16 moves a norm by less."""

_ROWS_AT_ONCE: Final = 65_536


@dataclass(frozen=True, slots=True)
class StoredBank:
    """
    A bank as it lay on disk, checked: ``vectors`` float16[n, d] in the order of ``entries``, ``probe`` float16[d].
    """

    manifest: BankManifest
    manifest_sha256: str
    entries: EntryTable = field(repr=False)
    vectors: Half = field(repr=False)
    probe: Half = field(repr=False)
    probe_png: bytes = field(repr=False)

    @property
    def sizes(self) -> Mapping[Label, int]:
        """
        How many references each label has, in the order in which the manifest declares the labels.
        """
        per_label = self.manifest.counts.per_label
        return {Label(label): per_label[label] for label in self.manifest.question.labels}

    def identity(self, index: str) -> BankIdentity:
        """
        What a verdict says of this bank when it is searched through ``index``.
        """
        return BankIdentity(
            id=self.manifest.id,
            version=self.manifest.version,
            manifest_sha256=self.manifest_sha256,
            entries=self.manifest.counts.entries,
            index=index,
            sizes=self.sizes,
            positive=Label(self.manifest.question.positive),
        )


def load_bank(path: Path) -> StoredBank:
    """
    The bank in a directory, after every check: manifest, checksums, shapes, finiteness, norms, entries, counts.

    Raises ``BankInvalid`` with one line per problem of the first check that fails, each naming the file, what was found
    and what was expected.
    """
    manifest = read_manifest(path)
    _refuse(path, list(_file_problems(path, manifest)))
    vectors, probe = _read_vectors(path, manifest)
    _refuse(path, list(_vector_problems(vectors, probe, manifest)))
    entries = EntryTable(read_entries((path / ENTRIES).read_bytes()))
    _refuse(path, list(_entry_problems(entries, manifest)))
    return StoredBank(manifest, manifest_sha256(manifest), entries, vectors, probe, (path / PROBE).read_bytes())


def read_manifest(path: Path) -> BankManifest:
    """
    The manifest alone, its own consistency checked but nothing beside it. Raises ``BankInvalid``.
    """
    if not path.is_dir():
        raise BankInvalid(
            f"bank {path}: found no directory; build one with `touchstone bank build SOURCE --out {path}`"
        )
    try:
        data = (path / MANIFEST).read_bytes()
    except OSError as fault:
        raise BankInvalid(f"bank {path}: {MANIFEST} cannot be read ({fault.strerror}); is this a bank?") from fault
    try:
        return BankManifest.model_validate_json(data)
    except ValidationError as fault:
        problems = [
            f"{'.'.join(str(part) for part in error['loc']) or 'it'} is {str(error['input'])[:80]!r}: {error['msg']}"
            for error in fault.errors(include_url=False)
        ]
        raise BankInvalid(
            f"bank {path}: {MANIFEST} is no manifest of format {FORMAT_VERSION}, which this worker reads: "
            f"{'; '.join(problems)}"
        ) from fault


def write_contents(
    path: Path, entries: list[BankEntry], *, vectors: Half, probe: Half, probe_png: bytes
) -> dict[str, str]:
    """
    Write everything but the manifest into an existing directory; returns the checksums that the manifest must carry.
    """
    save_file({"vectors": np.ascontiguousarray(vectors), "probe": np.ascontiguousarray(probe)}, path / VECTORS)
    # save_file makes a file that only its owner can read; a worker often runs as another user.
    (path / VECTORS).chmod(0o644)
    (path / ENTRIES).write_bytes(b"".join(entry_line(entry) + b"\n" for entry in entries))
    (path / PROBE).write_bytes(probe_png)
    for name in CHECKED_FILES:
        _sync(path / name)
    return {name: sha256_of(path / name) for name in CHECKED_FILES}


def write_manifest(path: Path, manifest: BankManifest) -> None:
    """
    Complete a bank directory; from here on it can be loaded.
    """
    (path / MANIFEST).write_bytes(canonical_bytes(manifest))
    _sync(path / MANIFEST)


def counts_of(entries: Iterable[BankEntry]) -> Counts:
    """
    What the manifest says of how many there are. Raises ``ValueError`` without entries.
    """
    per_label: Counter[str] = Counter()
    per_generator: dict[str, Counter[str]] = {}
    for entry in entries:
        per_label[entry.label] += 1
        if entry.generator is not None:
            per_generator.setdefault(entry.label, Counter())[entry.generator] += 1
    return Counts(
        entries=per_label.total(),
        per_label=dict(sorted(per_label.items())),
        per_generator={label: dict(sorted(found.items())) for label, found in sorted(per_generator.items())},
    )


def sha256_of(path: Path) -> str:
    """
    The sha256 of a file's bytes, in hex.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        raise BankInvalid("\n".join(f"bank {path}: {problem}" for problem in problems))


def _file_problems(path: Path, manifest: BankManifest) -> Iterator[str]:
    for name in CHECKED_FILES:
        expected = manifest.checksums[name]
        try:
            found = sha256_of(path / name)
        except OSError as fault:
            yield f"{name} cannot be read ({fault.strerror}), expected sha256 {expected}; copy the bank again"
            continue
        if found != expected:
            yield f"{name} has sha256 {found}, expected {expected}: damaged or changed by hand; copy the bank again"


def _read_vectors(path: Path, manifest: BankManifest) -> tuple[Half, Half]:
    try:
        tensors = load_file(path / VECTORS)
    except SafetensorError as fault:
        raise BankInvalid(f"bank {path}: {VECTORS} is no safetensors file ({fault}); rebuild the bank") from fault
    shapes = {"vectors": (manifest.counts.entries, manifest.encoder.dim), "probe": (manifest.encoder.dim,)}
    problems = [
        f"{VECTORS}: {name} is {_described(tensors.get(name))}, expected float16{list(shape)}; rebuild the bank"
        for name, shape in shapes.items()
        if name not in tensors or tensors[name].dtype != np.float16 or tensors[name].shape != shape
    ]
    _refuse(path, problems)
    return tensors["vectors"], tensors["probe"]


def _described(tensor: NDArray[np.generic] | None) -> str:
    return "missing" if tensor is None else f"{tensor.dtype}{list(tensor.shape)}"


def _vector_problems(vectors: Half, probe: Half, manifest: BankManifest) -> Iterator[str]:
    if bad := _not_unit(probe[None]):
        yield f"{VECTORS}: probe has norm {bad[0][1]:.6g}, expected 1"
    found: list[tuple[int, float]] = []
    for start in range(0, manifest.counts.entries, _ROWS_AT_ONCE):
        rows = _not_unit(vectors[start : start + _ROWS_AT_ONCE])
        found.extend((start + row, norm) for row, norm in rows)
    if found:
        row, norm = found[0]
        yield f"{VECTORS}: {len(found)} vectors are not of norm 1; the first, row {row}, has norm {norm:.6g}"


def _not_unit(rows: Half) -> list[tuple[int, float]]:
    norms = np.linalg.norm(rows.astype(np.float32), axis=1)
    # Not-a-number compares false with everything, so it must fail the question that a good norm passes.
    bad = np.flatnonzero(~(np.abs(norms - 1.0) < NORM_TOLERANCE))
    return [(int(row), float(norms[row])) for row in bad]


def _entry_problems(entries: EntryTable, manifest: BankManifest) -> Iterator[str]:
    if len(entries) != manifest.counts.entries:
        yield f"{ENTRIES} has {len(entries)} lines, expected {manifest.counts.entries}"
        return
    if repeated := entries.repeated_ids():
        yield f"{ENTRIES} gives {len(repeated)} ids more than once, the first is {repeated[0]}"
    found = counts_of(entries)
    if found.per_label != manifest.counts.per_label:
        yield f"{ENTRIES} holds per label {found.per_label}, expected {manifest.counts.per_label}"
    if found.per_generator != manifest.counts.per_generator:
        yield f"{ENTRIES} holds per generator {found.per_generator}, expected {manifest.counts.per_generator}"


def _sync(path: Path) -> None:
    # Before the rename that puts a bank in place: a power cut must not leave a name without its bytes.
    with path.open("rb") as file:
        os.fsync(file.fileno())
