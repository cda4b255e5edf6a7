"""
The fitted judgement of a bank's release: its files are written beside the vectors, and checked like them.

What is in those files is ``worker.judgement``'s affair, and who fits them is told to ``add_to_bank`` or calls
``with_judgement``; nothing here knows either.
"""

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from worker.bank.files import StoredBank, load_bank, sha256_of, sync, write_manifest
from worker.bank.full_disk import writing
from worker.bank.manifest import JUDGEMENT_FILES, BankManifest, JudgementRecord, check_name
from worker.bank.own_folder import own_folder
from worker.bank.survey import Progress
from worker.bank.swap import put_in_place, refusal, require_replaceable
from worker.errors import BankInvalid

_FOLDER_MODE = 0o755
_FILE_MODE = 0o644


class FittedFiles(Protocol):
    """
    A fitted judgement as it is to be written: the bytes of each file in ``JUDGEMENT_FILES``, and who it is.
    """

    @property
    def files(self) -> Mapping[str, bytes]:
        """
        The bytes by file name.
        """

    @property
    def id(self) -> str:
        """
        64 hex digits.
        """

    @property
    def version(self) -> str:
        """
        The version of what fitted it.
        """


Refit = Callable[[StoredBank, Progress], FittedFiles]
"""Fits a judgement to the references of a bank. Raises ``BankInvalid`` where they do not suffice."""


def next_version(version: str) -> str:
    """
    The version with its last number raised by one; raises ``BankInvalid`` where it does not end in one.
    """
    match = re.fullmatch(r"(.*?)(\d+)", version)
    if match is None:
        raise BankInvalid(f"version {version!r} does not end in a number; say the new one with --version")
    return f"{match[1]}{int(match[2]) + 1:0{len(match[2])}d}"


def changed_version(manifest: BankManifest, version: str | None, path: Path) -> str:
    """
    The version of a changed bank: the one asked for or the one after the present. Raises ``BankInvalid`` if the same.
    """
    changed = version or next_version(manifest.version)
    check_name("the bank's version", changed)
    if changed == manifest.version:
        raise BankInvalid(f"bank {path} has version {changed} already; a changed bank needs another --version")
    return changed


def place_of(out: Path) -> Path:
    """
    Where a bank really goes: through links, for a link to the present bank goes on naming it when it is replaced.
    """
    return Path(os.path.realpath(out))


def seal_judgement(folder: Path, manifest: BankManifest, fitted: FittedFiles) -> BankManifest:
    """
    Write a judgement's files and the manifest that names them into a folder that is not in place yet.

    Returns the manifest. Raises ``ValueError`` for other files than those of a judgement.
    """
    if set(fitted.files) != set(JUDGEMENT_FILES):
        raise ValueError(f"the judgement has files {sorted(fitted.files)}, expected {sorted(JUDGEMENT_FILES)}")
    for name, content in fitted.files.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(_FILE_MODE)
        sync(folder / name)
    record = JudgementRecord(
        id=fitted.id, version=fitted.version, files={name: sha256_of(folder / name) for name in JUDGEMENT_FILES}
    )
    sealed = manifest.model_copy(update={"judgement": record})
    write_manifest(folder, sealed)
    return sealed


def with_judgement(
    path: Path,
    fitted: FittedFiles,
    *,
    new_version: str | None = None,
    out: Path | None = None,
    replace: bool = False,
) -> StoredBank:
    """
    The same references released again with another judgement, put in place in one step; by default in the old's place.

    ``new_version`` is by default the one after the present. Vectors and entries are linked where the file system can,
    else copied. Raises ``CannotStart`` when the disk is full; ``BankInvalid`` when the bank is unsound, ``out`` is
    there already and ``replace`` is false, or the version would not change.
    """
    bank = load_bank(path)
    manifest = bank.manifest.model_copy(update={"version": changed_version(bank.manifest, new_version, path)})
    target = place_of(out or path)
    replace = replace or out is None
    if target.exists() and not replace:
        raise BankInvalid(refusal(target))
    require_replaceable(target)
    with writing(target), own_folder(target.with_name(f"{target.name}.fitting")) as folder:
        fresh = folder / "bank"
        fresh.mkdir()
        fresh.chmod(_FOLDER_MODE)
        for name in (*manifest.checksums, *(manifest.search.files if manifest.search is not None else ())):
            link_or_copy(path / name, fresh / name)
        seal_judgement(fresh, manifest, fitted)
        sealed = load_bank(fresh)
        put_in_place(fresh, target, replace=replace)
    return sealed


def link_or_copy(source: Path, target: Path) -> None:
    """
    The same file at another place: a link where the file system can, else a copy.
    """
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        # Another file system, or one without links.
        shutil.copyfile(source, target)
        sync(target)
