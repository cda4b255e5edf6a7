"""
Where exported encoders are kept: a folder of files for each, made once, hashed, and checked whenever it is used.

What the files are is nobody's business here. The hashes tell damage from the files that were made; against whoever may
write here they tell nothing, so the shelf must be this user's alone.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from worker.errors import EncoderInvalid

log = structlog.get_logger(__name__)

RECORD: Final = "export.json"
RECORD_SHA256: Final = "export.json.sha256"

_OTHERS_MAY_WRITE: Final = 0o022


class TowerFacts(BaseModel):
    """
    What is known of a tower that is not built; ``trial`` are torch's own features of ``trial_picture(size)``, in fp32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture_sha256: str
    weights_sha256: str
    size: int
    trial: tuple[float, ...]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    facts: TowerFacts
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Exported:
    """
    An exported encoder whose files have been checked.
    """

    folder: Path
    facts: TowerFacts


Make = Callable[[Path], TowerFacts]
"""Writes the files of an entry into an empty folder."""


def take(shelf: Path, name: str, make: Make) -> Exported:
    """
    The entry of this name; made where there is none yet, and made anew where it is damaged, which is logged.

    Of several processes that want it one makes it and the others wait. Raises ``EncoderInvalid`` where the shelf
    cannot be written or others may write there, and whatever ``make`` raises.
    """
    try:
        shelf.mkdir(parents=True, exist_ok=True, mode=0o700)
        entry = shelf / name
        _require_ours(shelf)
        with suppress(FileNotFoundError):
            _require_ours(entry)  # made here it is; it may have been copied here by other means
        found = _whole(entry)
        if found is not None:
            return found
        with _turn(shelf / f"{name}.lock"):
            # Whoever had the turn before may have made it.
            return _whole(entry) or _made(entry, make)
    except OSError as error:
        raise EncoderInvalid(
            f"exported encoders cannot be kept in {shelf} ({error.strerror}): set encoder.export_dir to a directory "
            "that this user may write, with room for a copy of the weights"
        ) from error


def _require_ours(folder: Path) -> None:
    """
    Nobody but this user and root may write to it. Raises ``EncoderInvalid``.
    """
    found = folder.stat()
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & _OTHERS_MAY_WRITE:
        raise EncoderInvalid(
            f"encoder.export_dir: {folder} may be written by others (owner {found.st_uid}, mode "
            f"{found.st_mode & 0o777:o}), who could change what the encoder computes: `chmod go-w` it, or name a "
            "directory within it that is not there yet"
        )


@contextmanager
def _turn(lock: Path) -> Iterator[None]:
    """
    One process at a time; a turn ends with its process.
    """
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("encoder_export_awaited", lock=lock.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _whole(entry: Path) -> Exported | None:
    """
    The entry if it is there as it was written; what is damaged is said.
    """
    try:
        written = (entry / RECORD).read_bytes()
        expected = (entry / RECORD_SHA256).read_text(encoding="ascii").strip()
        damaged = RECORD if hashlib.sha256(written).hexdigest() != expected else None
        record = _Record.model_validate_json(written)
        for file, sha256 in record.files.items():
            damaged = damaged or (file if _sha256(entry / file) != sha256 else None)
    except FileNotFoundError as error:
        if not entry.exists():
            return None
        damaged = Path(error.filename).name
    except (ValidationError, UnicodeDecodeError):
        damaged = RECORD
    if damaged is None:
        return Exported(entry, record.facts)
    log.warning("encoder_export_damaged", entry=entry.name, file=damaged, done="it is made anew")
    return None


def _made(entry: Path, make: Make) -> Exported:
    """
    The entry, made beside its place and then put there whole. The caller has the turn.
    """
    part = entry.with_name(f"{entry.name}.part")
    _removed(part)  # of somebody who was killed
    part.mkdir(mode=0o700)
    log.info("encoder_exporting", entry=entry.name)
    try:
        facts = make(part)
        files = {file.name: _sha256(file) for file in sorted(part.iterdir())}
        written = _Record(facts=facts, files=files).model_dump_json().encode()
        (part / RECORD).write_bytes(written)
        (part / RECORD_SHA256).write_text(hashlib.sha256(written).hexdigest() + "\n", encoding="ascii")
        for file in part.iterdir():
            _settled(file)
        _removed(entry)  # a damaged one
        part.rename(entry)
        _settled(entry.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Exported(entry, facts)


def _removed(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _settled(path: Path) -> None:
    """
    Wait until a file, or the names in a directory, are on disk.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
