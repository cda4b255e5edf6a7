"""
Where releases lie: what a place of releases can do, and the one that is a directory.

The one in an S3-compatible store is ``worker/adapters/s3_releases.py``; what is kept in a place, and when
it changes, is ``worker/bank/releases.py``.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from worker.bank.files import sync
from worker.bank.manifest_checks import MAX_CANARIES_BYTES
from worker.bank.own_folder import own_folder
from worker.errors import BankInvalid, CannotStart

MAX_SMALL_BYTES: Final = MAX_CANARIES_BYTES
"""Of what ``read`` reads: pointers, steps, manifests, lists of canaries. A longer one is refused unread."""

HIDDEN: Final = "."
"""First letter of a name that is being made, and of nothing else."""

_FOLDER_MODE: Final = 0o755
_FILE_MODE: Final = 0o644


class ReleasePlace(Protocol):
    """
    A folder of small files and of releases. Every method blocks, and raises ``CannotStart`` where it cannot be reached.

    Names are relative and have slashes; nothing that is half written ever has its name.
    """

    @property
    def name(self) -> str:
        """
        For people: the directory, or s3://BUCKET/PREFIX.
        """

    def read(self, name: str) -> bytes | None:
        """
        A small file's bytes; None where it is not there. Raises ``BankInvalid`` for more than ``MAX_SMALL_BYTES``.
        """

    def write(self, name: str, data: bytes) -> None:
        """
        A small file in one step, in place of the one of that name.
        """

    def listed(self, folder: str = "") -> list[str]:
        """
        The names of what lies directly in a folder, sorted.
        """

    def put(self, release: str, files: Mapping[str, Path]) -> None:
        """
        A new release of these files by name; it is there when its manifest is.
        """

    def folder(self, release: str, manifest_sha256: str) -> Path:
        """
        A directory of this machine with all files of a release, not yet checked.

        Where it has to be brought here it is kept under the manifest's hash, so that no other release is taken for it,
        and no file is brought that is longer than its manifest allows. Raises ``BankInvalid``.
        """

    def forget_copy(self, release: str, manifest_sha256: str) -> None:
        """
        Remove what was brought here, because it did not pass its checks; nothing in the place itself is touched.
        """


def too_long(place: str, name: str, most_bytes: int) -> BankInvalid:
    """
    The refusal of a file that is longer than it can be.
    """
    return BankInvalid(
        f"{place}: {name} has more than {most_bytes} bytes, expected at most that; it was not read further. It is "
        "damaged or was replaced: publish the bank again under another name"
    )


def put_file(target: Path, data: bytes) -> None:
    """
    A small file in one step, in place of the one of that name; its folder is made. Raises ``OSError``.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, fresh = tempfile.mkstemp(prefix=f"{HIDDEN}{target.name}-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes a file that only its owner can read; a worker often runs as another user.
        Path(fresh).chmod(_FILE_MODE)
        Path(fresh).replace(target)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


class DirectoryPlace:
    """
    Implements ``ReleasePlace`` on a directory, which many machines may share.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def name(self) -> str:
        """
        The directory.
        """
        return str(self._root)

    def read(self, name: str) -> bytes | None:
        """
        A file's bytes.
        """
        with self._reaching():
            # A file that is not there is nothing new; a directory that is not there may be a mount that was lost.
            if not self._root.is_dir():
                raise FileNotFoundError(2, "No such directory", str(self._root))
            try:
                with (self._root / name).open("rb") as file:
                    data = file.read(MAX_SMALL_BYTES + 1)
            except (FileNotFoundError, NotADirectoryError):
                return None
        if len(data) > MAX_SMALL_BYTES:
            raise too_long(self.name, name, MAX_SMALL_BYTES)
        return data

    def write(self, name: str, data: bytes) -> None:
        """
        Written beside, then renamed.
        """
        with self._reaching():
            put_file(self._root / name, data)

    def listed(self, folder: str = "") -> list[str]:
        """
        What lies in a folder; nothing where it is not there.
        """
        with self._reaching():
            try:
                return sorted(path.name for path in (self._root / folder).iterdir() if path.name[0] != HIDDEN)
            except FileNotFoundError:
                return []

    def put(self, release: str, files: Mapping[str, Path]) -> None:
        """
        Copied into a folder beside, then renamed.
        """
        with self._reaching():
            self._root.mkdir(parents=True, exist_ok=True)
            with own_folder(self._root / f"{HIDDEN}{release}.publishing") as folder:
                fresh = folder / release
                fresh.mkdir()
                fresh.chmod(_FOLDER_MODE)
                for name, path in files.items():
                    shutil.copyfile(path, fresh / name)
                    (fresh / name).chmod(_FILE_MODE)
                    sync(fresh / name)
                fresh.rename(self._root / release)

    def folder(self, release: str, manifest_sha256: str) -> Path:  # noqa: ARG002 - the port's
        """
        The release itself.
        """
        return self._root / release

    def forget_copy(self, release: str, manifest_sha256: str) -> None:
        """
        Nothing: there is no copy.
        """

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            raise CannotStart(
                f"the place of releases {self._root} cannot be used ({fault.strerror or fault}); check that it is "
                "mounted and may be read, and written by whoever publishes"
            ) from fault
