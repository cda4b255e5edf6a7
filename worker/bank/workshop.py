"""
The folder beside a bank under construction, in which embeddings wait until the bank is whole.

What is kept is keyed by content and encoder, not by the listing: a build that was killed goes on where it was, also
when the source was corrected in between, and an embedding of other weights can never get in.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from worker.bank.files import Half
from worker.domain import ContentHash, EncoderFingerprint
from worker.errors import BankInvalid

JOURNAL: Final = "journal.json"
_PARTS: Final = "part-*.safetensors"


@dataclass(frozen=True, slots=True)
class Embedded:
    """
    One content that was embedded: its vector, float16[d], and what the decoder found.
    """

    vector: Half = field(repr=False)
    format: str | None
    width: int | None
    height: int | None
    byte_length: int


class Workshop:
    """
    ``DIR.partial/``: a journal that names the encoder, and one file per part that was finished. One process at a time.
    """

    def __init__(self, target: Path, fingerprint: EncoderFingerprint, *, restart: bool) -> None:
        self.path = target.with_name(target.name + ".partial")
        self._fingerprint = fingerprint
        self._known: dict[ContentHash, Embedded] = {}
        self._parts = 0
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            self._take_lock()
            if restart:
                self._clear()
            self._check_journal()
            self._read_parts()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    @property
    def known(self) -> Mapping[ContentHash, Embedded]:
        """
        Every content that was finished, in this run or an earlier one.
        """
        return self._known

    def keep(self, finished: Mapping[ContentHash, Embedded]) -> None:
        """
        Store one part; when this returns, a kill cannot lose it.
        """
        if not finished:
            return
        while (part := self.path / f"part-{self._parts:06d}.safetensors").exists():
            self._parts += 1
        records = [
            [content_hash, one.format, one.width, one.height, one.byte_length] for content_hash, one in finished.items()
        ]
        draft = part.with_suffix(".draft")
        vectors = np.stack([one.vector for one in finished.values()])
        save_file({"vectors": vectors}, draft, metadata={"records": json.dumps(records)})
        descriptor = os.open(draft, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        draft.rename(part)
        self._known.update(finished)

    def fresh_folder(self) -> Path:
        """
        An empty folder for the finished bank, on the same file system as its target.
        """
        folder = self.path / "bank"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def remove(self) -> None:
        """
        Clear everything away, once the bank is in place.
        """
        shutil.rmtree(self.path)

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            raise BankInvalid(
                f"{self.path} is in use by another build; wait for it, or choose another --out"
            ) from fault

    def _clear(self) -> None:
        for found in self.path.iterdir():
            if found.is_dir():
                shutil.rmtree(found)
            else:
                found.unlink()

    def _check_journal(self) -> None:
        journal = self.path / JOURNAL
        mine = {"encoder_id": self._fingerprint.id, "model": self._fingerprint.model}
        try:
            found = json.loads(journal.read_bytes())
        except FileNotFoundError:
            # Renamed into place: a kill in between must not leave an empty journal, which would refuse to go on.
            fresh = journal.with_suffix(".new")
            fresh.write_text(json.dumps(mine))
            fresh.replace(journal)
            return
        except ValueError:
            found = {}
        if found.get("encoder_id") != self._fingerprint.id:
            raise BankInvalid(
                f"{self.path} holds work of encoder {found.get('model')} ({found.get('encoder_id')}), expected "
                f"{mine['model']} ({mine['encoder_id']}); go on with the same encoder, or drop it with --restart"
            )

    def _read_parts(self) -> None:
        for part in sorted(self.path.glob(_PARTS)):
            try:
                self._known.update(_read_part(part, self._fingerprint.dim))
            except (SafetensorError, ValueError, KeyError, TypeError):
                # Half a part after a power cut: its references are simply embedded again.
                with suppress(FileNotFoundError):
                    part.unlink()


def _read_part(part: Path, dim: int) -> dict[ContentHash, Embedded]:
    with safe_open(part, framework="np") as file:
        vectors: Half = file.get_tensor("vectors")
        records = json.loads(file.metadata()["records"])
    if vectors.dtype != np.float16 or vectors.shape != (len(records), dim):
        raise ValueError(f"{part} holds {vectors.dtype}{list(vectors.shape)}, want float16[{len(records)}, {dim}]")
    return {
        ContentHash(content_hash): Embedded(vector, *facts)
        for vector, (content_hash, *facts) in zip(vectors, records, strict=True)
    }
