"""
Reviews as files: the rows that a reviewer goes through, and the pictures that they speak of.

The first columns are those of ``touchstone bank add`` (``worker.bank.sources``), which passes over all others.
"""

import csv
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from worker.bank.sources import SIDECARS
from worker.errors import CannotStart
from worker.operation.reviewing import Reviewed

COLUMNS: Final = (
    *("path", "label", "generator", "source", "licence", "sha256"),
    *("state", "said", "roles", "decision", "content_id", "tenant_id", "verdict_ids", "notes"),
)
"""The first six are read by ``touchstone bank add``; the others are for the reviewer."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def write_review(file: Path, rows: Iterable[Reviewed], *, source: str, licence: str) -> None:
    """
    Write the rows; the file is there whole or as it was. Raises ``CannotStart`` where it cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=file.absolute().parent, prefix=f".{file.name}.", delete=False, encoding="utf-8", newline=""
        ) as lines:
            writer = csv.DictWriter(lines, COLUMNS)
            writer.writeheader()
            writer.writerows(_row(row, file, source, licence) for row in rows)
        Path(lines.name).replace(file)
    except OSError as fault:
        raise CannotStart(f"{file} cannot be written ({fault.strerror}); name another file with --out") from fault


def pictures_in(
    folder: Path, wanted: frozenset[str], *, progress: Callable[[int, int], None] = lambda _done, _of: None
) -> Mapping[str, str]:
    """
    Where below ``folder`` the bytes of the wanted hashes lie, by hash; of copies the first in order of names.

    Raises ``CannotStart`` for a file that cannot be read.
    """
    found: dict[str, str] = {}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() not in SIDECARS)
    progress(0, len(files))
    for number, path in enumerate(files, start=1):
        try:
            with path.open("rb") as data:
                content_hash = hashlib.file_digest(data, "sha256").hexdigest()
        except OSError as fault:
            raise CannotStart(f"{path} cannot be read ({fault.strerror}); make it readable, or move it") from fault
        if content_hash in wanted:
            found.setdefault(content_hash, str(path.resolve()))
        progress(number, len(files))
    return found


def _row(row: Reviewed, file: Path, source: str, licence: str) -> dict[str, str]:
    judged = row.judged
    return {
        "path": _path(row, file),
        "label": row.label or "" if row.state == "agreed" else "",
        "generator": row.generator or "",
        "source": source,
        "licence": licence,
        "sha256": (judged and judged.sha256) or "",
        "state": row.state,
        "said": _tally(row.labels),
        "roles": _tally(row.roles),
        "decision": (judged and judged.decision) or "",
        "content_id": _inert(judged.content_id if judged else ""),
        "tenant_id": _inert((judged and judged.tenant_id) or ""),
        "verdict_ids": " ".join(dict.fromkeys(str(word.verdict_id) for word in row.words)),
        "notes": _inert(" | ".join(word.note for word in row.words if word.note)),
    }


def _path(row: Reviewed, file: Path) -> str:
    # Relative where that holds when the folder is moved as a whole, as `bank add` reads it.
    if row.path is None:
        return ""
    path, home = Path(row.path), file.absolute().parent.resolve()
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)


def _tally(counts: Mapping[str, int]) -> str:
    return _inert(" ".join(f"{name}:{number}" for name, number in sorted(counts.items())))


def _inert(text: str) -> str:
    """
    Text that a spreadsheet shows and does not run: what begins like a formula gets an apostrophe in front.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text
