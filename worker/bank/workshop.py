"""
The folder beside a bank under construction, in which embeddings wait until the bank is whole.

What is kept is keyed by content, encoder and views, not by the listing: a build that was killed goes on where it was,
also when the source was corrected in between, and an embedding of other weights or of another crop can never get in.
"""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from worker.bank.own_folder import clear, take_folder
from worker.bank.vectors import Measured, from_tensors, shape_problems, single_rows, stacked
from worker.domain import ContentHash, EncoderFingerprint
from worker.errors import BankInvalid
from worker.views import ViewSpec

JOURNAL: Final = "journal.json"
_PARTS: Final = "part-*.safetensors"


@dataclass(frozen=True, slots=True)
class Embedded:
    """
    One content that was embedded: what was measured of it, and what the decoder found.
    """

    measured: Measured = field(repr=False)
    format: str | None
    width: int | None
    height: int | None
    byte_length: int


class Workshop:
    """
    ``DIR.partial/``: a journal that names encoder and views, and one file per finished part. One process at a time.
    """

    def __init__(self, target: Path, fingerprint: EncoderFingerprint, *, views: ViewSpec, restart: bool) -> None:
        self.path = target.with_name(target.name + ".partial")
        self._fingerprint = fingerprint
        self._views = views
        self._known: dict[ContentHash, Embedded] = {}
        self._parts = 0
        self._lock = take_folder(self.path)
        try:
            if restart:
                clear(self.path)
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
        columns = stacked([one.measured for one in finished.values()], self._fingerprint.dim)
        save_file(columns.tensors(), draft, metadata={"records": json.dumps(records)})
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

    def _check_journal(self) -> None:
        journal = self.path / JOURNAL
        mine = {
            "encoder_id": self._fingerprint.id,
            "model": self._fingerprint.model,
            "views": asdict(self._views),
            "views_sha256": self._views.sha256,
        }
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
        # The hash tells the rules by which crops are cut; whether shifts were measured is not in it.
        if (found.get("views"), found.get("views_sha256")) != (mine["views"], mine["views_sha256"]):
            raise BankInvalid(
                f"{self.path} holds work of other views, {_said(found.get('views'))}, expected {_said(mine['views'])}; "
                "go on with the same views, or drop it with --restart"
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
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a handle, not a mapping
        records = json.loads(file.metadata()["records"])
    if problems := shape_problems(tensors, len(records), dim):
        raise ValueError(f"{part}: {'; '.join(problems)}")
    return {
        ContentHash(content_hash): Embedded(measured, *facts)
        for measured, (content_hash, *facts) in zip(single_rows(from_tensors(tensors)), records, strict=True)
    }


def _said(views: object) -> str:
    return ", ".join(f"{name} {value}" for name, value in views.items()) if isinstance(views, dict) else "unknown"
