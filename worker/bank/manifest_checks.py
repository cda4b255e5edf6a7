"""
What a bank's manifest says before any other file is opened: whether it can be followed, and what may lie beside it.

Reading and writing the directory is ``worker.bank.files``.
"""

import json
from collections.abc import Iterator
from typing import Final

from pydantic import ValidationError

from worker.bank.manifest import (
    CANARY_FILES,
    ENTRIES,
    FORMAT_VERSION,
    MANIFEST,
    MANIFEST_SUM,
    PROBE,
    SEARCH,
    SIGNATURE,
    VECTORS,
    BankManifest,
)
from worker.bank.regular_files import sum_problem
from worker.bank.signature import MAX_SIGNATURE_BYTES
from worker.bank.tensor_file import MAX_HEADER_BYTES
from worker.bank.vectors import row_bytes
from worker.errors import BankInvalid

MAX_MANIFEST_BYTES: Final = 16 * 1_048_576
MAX_ENTRY_BYTES: Final = 8_192
"""Of one line: its four words of 256 characters, each at its longest in JSON."""
MAX_PROBE_BYTES: Final = 64 * 1_048_576
MAX_JUDGEMENT_BYTES: Final = 4 * 1_073_741_824
MAX_CANARIES_BYTES: Final = 64 * 1_048_576
"""Of either file: canaries are few."""


def parsed_manifest(where: str, data: bytes, said: bytes | None) -> BankManifest:
    """
    A manifest's bytes held against its checksum file's, which is None where there is none. Raises ``BankInvalid``.
    """
    _refuse_other_format(where, data)
    try:
        manifest = BankManifest.model_validate_json(data)
    except ValidationError as fault:
        problems = [
            f"{'.'.join(str(part) for part in error['loc']) or 'it'} is {str(error['input'])[:80]!r}: {error['msg']}"
            for error in fault.errors(include_url=False)
        ]
        raise BankInvalid(
            f"{where}: {MANIFEST} is no manifest of format {FORMAT_VERSION}, which this worker reads: "
            f"{'; '.join(problems)}"
        ) from fault
    if said is None:
        raise BankInvalid(
            f"{where}: {MANIFEST_SUM} is missing, so nothing vouches for {MANIFEST}; copy the bank again, or where you "
            f"know that it is whole (an earlier version built it) run `sha256sum {MANIFEST} > {MANIFEST_SUM}` in it"
        )
    if problem := sum_problem(MANIFEST, data, said):
        raise BankInvalid(f"{where}: {problem}")
    return manifest


def known_files(manifest: BankManifest) -> frozenset[str]:
    """
    Every name that may lie in the directory of this bank, or of a release of it.
    """
    return frozenset((*manifest.file_checksums, MANIFEST, MANIFEST_SUM, SIGNATURE, *CANARY_FILES))


def most_bytes(name: str, manifest: BankManifest) -> int:
    """
    How long a file of this bank can be, by what its manifest counts; a longer one is refused before it is read.
    """
    count, dim = manifest.counts.entries, manifest.encoder.dim
    if name == VECTORS:
        return count * row_bytes(dim, manifest.views.native_crops) + 2 * dim + MAX_HEADER_BYTES
    if name == SEARCH and manifest.search is not None:
        # A cell and a code of each reference; of each label the axes, the cells' centres, and the words of the codes.
        cells = sum(manifest.search.cells.values()) + (dim + 16) * len(manifest.search.cells)
        return count * (4 + dim) + 4 * dim * cells + MAX_HEADER_BYTES
    counted = {ENTRIES: count * MAX_ENTRY_BYTES, PROBE: MAX_PROBE_BYTES}
    alone = {MANIFEST: MAX_MANIFEST_BYTES, **dict.fromkeys((MANIFEST_SUM, SIGNATURE), MAX_SIGNATURE_BYTES)}
    return {**counted, **alone, **dict.fromkeys(CANARY_FILES, MAX_CANARIES_BYTES)}.get(name, MAX_JUDGEMENT_BYTES)


def view_problems(manifest: BankManifest) -> Iterator[str]:
    """
    Why this worker cannot look at uploads as the bank's references were looked at.
    """
    expected = manifest.views.spec().sha256
    if manifest.views.sha256 != expected:
        yield (
            f"{MANIFEST}: views.sha256 is {manifest.views.sha256}, expected {expected}: its crops and statistics were "
            "made by other rules than this worker's, or the views were changed by hand; rebuild the bank"
        )


def _refuse_other_format(where: str, data: bytes) -> None:
    try:
        found = json.loads(data)
    except ValueError:
        return
    version = found.get("format_version") if isinstance(found, dict) else None
    if isinstance(version, int) and version != FORMAT_VERSION:
        remedy = "rebuild it with `touchstone bank build`" if version < FORMAT_VERSION else "use a newer worker"
        raise BankInvalid(
            f"{where}: {MANIFEST} is of bank format {version}, this worker reads format {FORMAT_VERSION}; {remedy}"
        )
