"""
A bank directory, read whole and written whole: no part of it is trusted before it was checked.

``manifest.json`` with ``manifest.sha256``, ``vectors.safetensors`` (the columns of ``worker.bank.vectors`` in the
order of the entries, and ``probe`` float16[D]), ``entries.jsonl`` (one per line), ``probe.png``; where one was fitted
``judgement.json`` and ``heads.safetensors``; where it carries an approximate index ``search.safetensors``; where it was
signed ``manifest.sig``. Nothing is pickled, and no file is in a format of FAISS.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from worker.bank.entries import EntryTable, entry_line, read_entries
from worker.bank.manifest import (
    CHECKED_FILES,
    ENTRIES,
    MANIFEST,
    MANIFEST_SUM,
    PROBE,
    SIGNATURE,
    VECTORS,
    BankManifest,
    Counts,
    canonical_bytes,
    manifest_sha256,
)
from worker.bank.manifest_checks import (
    MAX_MANIFEST_BYTES,
    known_files,
    most_bytes,
    parsed_manifest,
    view_problems,
)
from worker.bank.regular_files import FileRefused, digest_of, read_whole, strays, sum_line, unread
from worker.bank.search_cells import SearchCells, read_cells
from worker.bank.settled import read_settled
from worker.bank.signature import MAX_SIGNATURE_BYTES, check_signature
from worker.bank.tensor_file import ReadTensors, read_tensor_file
from worker.bank.vectors import (
    NORM_TOLERANCE,
    Half,
    StoredVectors,
    described,
    from_tensors,
    shape_problems,
    unit_rows,
    value_problems,
)
from worker.domain import BankEntry, BankIdentity, Label
from worker.errors import BankInvalid
from worker.heads.features import FeatureTable, References
from worker.views import ViewSpec


@dataclass(frozen=True, slots=True)
class StoredBank:
    """
    A bank as it lay on disk, checked: ``stored`` holds its columns in the order of ``entries``, ``probe`` float16[d].

    ``without`` names what was left out of it since (see ``worker.bank.leaving_out``); None where that is nothing.
    ``search`` is the approximate index that it carries, None where it has none.
    """

    manifest: BankManifest
    manifest_sha256: str
    entries: EntryTable = field(repr=False)
    stored: StoredVectors = field(repr=False)
    probe: Half = field(repr=False)
    probe_png: bytes = field(repr=False)
    without: str | None = None
    search: SearchCells | None = field(default=None, repr=False)

    @property
    def vectors(self) -> Half:
        """
        The references' embeddings of the global view, float16[n, d].
        """
        return self.stored.vectors

    @property
    def views(self) -> ViewSpec:
        """
        What was looked at of every reference, and is to be looked at of whatever is compared with them.
        """
        return self.manifest.views.spec()

    @property
    def sizes(self) -> Mapping[Label, int]:
        """
        How many references each label has, in the order in which the manifest declares the labels.
        """
        per_label = self.manifest.counts.per_label
        return {Label(label): per_label[label] for label in self.manifest.question.labels}

    def references(self) -> References:
        """
        The references with all that was measured of them, for fitting and evaluating; positive is the question's.

        Made anew for each call, in about a second per 100 000 references: 4 bytes per dimension of every vector, crops
        included (0.3 GB for 100 000 references of 768 dimensions without crops, five times that with four), and 0.2 kB
        beside. The vectors are brought to length 1 in single precision, as the worker's index holds them.
        """
        stored, entries = self.stored, self.entries
        positive = np.zeros(len(entries), dtype=np.bool_)
        positive[entries.rows_of(Label(self.manifest.question.positive))] = True
        return References(
            features=FeatureTable(
                unit=unit_rows(stored.vectors),
                norm=stored.norms.astype(np.float64),
                native=unit_rows(stored.native),
                native_owner=stored.native_owner.astype(np.int64),
                realism=stored.realism.astype(np.float64),
                shift=stored.shift.astype(np.float64),
                format=entries.formats(),
                short_side_px=entries.short_sides_px(),
            ),
            positive=positive,
            generator=entries.generators(),
            source=entries.sources(),
            content=entries.contents(),
        )

    def identity(self, index: str) -> BankIdentity:
        """
        What a verdict says of this bank when it is searched through ``index``, and what of it is left out.
        """
        # In the index, which the ids of verdicts depend on: the manifest goes on naming the files, which are as before.
        searched = index if self.without is None else f"{index} without {self.without}"
        return BankIdentity(
            id=self.manifest.id,
            version=self.manifest.version,
            manifest_sha256=self.manifest_sha256,
            entries=self.manifest.counts.entries,
            index=searched,
            sizes=self.sizes,
            positive=Label(self.manifest.question.positive),
            made_s=self.manifest.created_at.timestamp(),
        )


def load_bank(path: Path, trusted: Collection[str] = ()) -> StoredBank:
    """
    The bank in a directory, after every check: manifest, checksums, shapes, finiteness, norms, entries, counts.

    Each file is read once: what was hashed is what is returned. With ``trusted`` public keys (64 hex digits each) one
    of them must have signed it. Raises ``BankInvalid`` with one line per problem of the first check that fails, each
    naming the file, what was found and what was expected. Of a fitted judgement only the bytes are checked. A bank that
    is replaced while it is read is read once more.
    """
    return read_settled(path, lambda: _read_bank(path, trusted))


def _read_bank(path: Path, trusted: Collection[str]) -> StoredBank:
    manifest = read_manifest(path, trusted)
    _refuse(path, list(view_problems(manifest)))
    _refuse(path, list(strays(path, known_files(manifest))))
    read, lines, probe_png = _checked_files(path, manifest)
    stored, probe = _vectors_of(path, read, manifest)
    _refuse(path, list(_vector_problems(stored, probe, manifest)))
    entries = EntryTable(read_entries(lines))
    _refuse(path, list(_entry_problems(entries, manifest)))
    rows = {Label(label): entries.rows_of(Label(label)) for label in manifest.question.labels}
    search = read_cells(path, manifest, rows)
    return StoredBank(manifest, manifest_sha256(manifest), entries, stored, probe, probe_png, search=search)


def read_manifest(path: Path, trusted: Collection[str] = ()) -> BankManifest:
    """
    The manifest alone, its own consistency, checksum and signatures checked but nothing beside it.

    Raises ``BankInvalid``, also where none of the ``trusted`` keys signed it; without any, nobody need.
    """
    if not _is_folder(path):
        raise BankInvalid(
            f"bank {path}: found no directory; build one with `touchstone bank build SOURCE --out {path}`"
        )
    try:
        data = read_whole(path / MANIFEST, most_bytes=MAX_MANIFEST_BYTES)
    except FileRefused as fault:
        raise BankInvalid(f"bank {path}: {MANIFEST} {fault}; is this a bank?") from fault
    manifest = parsed_manifest(f"bank {path}", data, _beside(path, MANIFEST_SUM))
    check_signature(f"bank {path}", manifest, _beside(path, SIGNATURE), trusted)
    return manifest


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as fault:
        unread(path, fault)


def _beside(path: Path, name: str) -> bytes | None:
    if not os.path.lexists(path / name):
        return None
    try:
        return read_whole(path / name, most_bytes=MAX_SIGNATURE_BYTES)
    except FileRefused as fault:
        raise BankInvalid(f"bank {path}: {name} {fault}") from fault


def write_contents(
    path: Path, entries: list[BankEntry], *, stored: StoredVectors, probe: Half, probe_png: bytes
) -> dict[str, str]:
    """
    Write what each bank has beside its manifest into an existing directory; returns the manifest's checksums.
    """
    save_file({**stored.tensors(), "probe": np.ascontiguousarray(probe)}, path / VECTORS)
    # save_file makes a file that only its owner can read; a worker often runs as another user.
    (path / VECTORS).chmod(0o644)
    (path / ENTRIES).write_bytes(b"".join(entry_line(entry) + b"\n" for entry in entries))
    (path / PROBE).write_bytes(probe_png)
    for name in CHECKED_FILES:
        sync(path / name)
    return {name: sha256_of(path / name) for name in CHECKED_FILES}


def write_manifest(path: Path, manifest: BankManifest) -> None:
    """
    Complete a bank directory; from here on it can be loaded.
    """
    data = canonical_bytes(manifest)
    (path / MANIFEST_SUM).write_bytes(sum_line(MANIFEST, data))
    (path / MANIFEST).write_bytes(data)
    for name in (MANIFEST_SUM, MANIFEST):
        sync(path / name)


def counts_of(entries: Iterable[BankEntry]) -> Counts:
    """
    What the manifest says of how many there are. Raises ``ValueError`` without entries.
    """
    return _counted(Counter((entry.label, entry.generator) for entry in entries))


def _counted(tally: Mapping[tuple[str, str | None], int]) -> Counts:
    per_label: Counter[str] = Counter()
    per_generator: dict[str, Counter[str]] = {}
    for (label, generator), count in tally.items():
        per_label[label] += count
        if generator is not None:
            per_generator.setdefault(label, Counter())[generator] += count
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


def _checked_files(path: Path, manifest: BankManifest) -> tuple[ReadTensors, bytes, bytes]:
    """
    The vectors, the lines of the entries and the probe's picture, read once and held against the manifest.
    """
    problems: list[str] = []
    found: dict[str, bytes] = {}
    vectors = ReadTensors("", {})
    for name, expected in manifest.file_checksums.items():
        longest = most_bytes(name, manifest)
        try:
            if name == VECTORS:
                vectors = read_tensor_file(path / name, most_bytes=longest)
                digest = vectors.sha256
            elif name in CHECKED_FILES:
                found[name] = read_whole(path / name, most_bytes=longest)
                digest = hashlib.sha256(found[name]).hexdigest()
            else:
                digest = digest_of(path / name, most_bytes=longest)
        except FileRefused as fault:
            problems.append(f"{name} {fault}, expected sha256 {expected}; copy the bank again")
            continue
        if digest != expected:
            problems.append(
                f"{name} has sha256 {digest}, expected {expected}: damaged or changed by hand; copy the bank again"
            )
    _refuse(path, problems)
    return vectors, found[ENTRIES], found[PROBE]


def _vectors_of(path: Path, read: ReadTensors, manifest: BankManifest) -> tuple[StoredVectors, Half]:
    if read.problem is not None:
        raise BankInvalid(f"bank {path}: {VECTORS} is no safetensors file ({read.problem}); rebuild the bank")
    tensors, dim = read.tensors, manifest.encoder.dim
    probe = tensors.get("probe")
    problems = shape_problems(tensors, manifest.counts.entries, dim)
    if probe is None or probe.dtype != np.float16 or probe.shape != (dim,):
        problems.append(f"probe is {described(probe)}, expected float16[{dim}]")
    _refuse(path, [f"{VECTORS}: {problem}; rebuild the bank" for problem in problems])
    return from_tensors(tensors), tensors["probe"]


def _vector_problems(stored: StoredVectors, probe: Half, manifest: BankManifest) -> Iterator[str]:
    norm = float(np.linalg.norm(probe.astype(np.float32)))
    if not abs(norm - 1.0) < NORM_TOLERANCE:
        yield f"{VECTORS}: probe has norm {norm:.6g}, expected 1"
    for problem in value_problems(stored, manifest.views.spec()):
        yield f"{VECTORS}: {problem}"


def _entry_problems(entries: EntryTable, manifest: BankManifest) -> Iterator[str]:
    if len(entries) != manifest.counts.entries:
        yield f"{ENTRIES} has {len(entries)} lines, expected {manifest.counts.entries}"
        return
    if repeated := entries.repeated_ids():
        yield f"{ENTRIES} gives {len(repeated)} ids more than once, the first is {repeated[0]}"
    found = _counted(entries.tally())
    if found.per_label != manifest.counts.per_label:
        yield f"{ENTRIES} holds per label {found.per_label}, expected {manifest.counts.per_label}"
    if found.per_generator != manifest.counts.per_generator:
        yield f"{ENTRIES} holds per generator {found.per_generator}, expected {manifest.counts.per_generator}"


def sync(path: Path) -> None:
    """
    Wait until a file's bytes are on the disk.
    """
    # Before the rename that puts a bank in place: a power cut must not leave a name without its bytes.
    with path.open("rb") as file:
        os.fsync(file.fileno())
