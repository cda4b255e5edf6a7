"""
Image bytes from files below one configured root.

A path that leaves the root, by ``..`` or by a symbolic link, is refused before anybody learns whether it exists.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from schemas.errors import ErrorCode
from schemas.uploaded import FileRef
from worker.errors import CannotStart, UploadFailed

READ_ONLY = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
# Opening a FIFO that nobody writes to would block for ever.
REGULAR = READ_ONLY | os.O_NONBLOCK
FOLDER = READ_ONLY | os.O_DIRECTORY

_NOT_PLAIN: Final = frozenset({"", ".", ".."})
_READ_BYTES: Final = 1 << 20


class FileStore:
    """
    Reads regular files below ``root``. Called by many threads at once.

    Raises ``CannotStart`` when ``root`` is no directory.
    """

    def __init__(self, root: Path, *, max_image_bytes: int) -> None:
        if not root.is_dir():
            raise CannotStart(f"fetch.file_root {root} is no directory; create it, or leave file_root out")
        self._root = Path(os.path.realpath(root))
        self._max_image_bytes = max_image_bytes

    def read(self, ref: FileRef) -> bytes:
        """
        The file's bytes; ``path`` is relative to the root, or absolute and below it.

        Raises ``UploadFailed``: REF_FORBIDDEN, FETCH_NOT_FOUND, FETCH_UNAUTHORIZED, FETCH_TOO_LARGE or FETCH_UPSTREAM.
        """
        try:
            file = self._opened(ref.path)
            try:
                return self._contents(file)
            finally:
                os.close(file)
        except OSError as error:
            raise _failure(error, self._root) from error
        except ValueError as error:  # outside the root, or a name that no file can have
            raise UploadFailed(ErrorCode.REF_FORBIDDEN, "the path leads out of fetch.file_root") from error

    def _opened(self, path: str) -> int:
        """
        A descriptor of the file. A path of plain names is tried as it is; one that then is not there may have links.
        """
        steps = path.split("/")
        if _NOT_PLAIN.isdisjoint(steps):
            with contextlib.suppress(OSError):
                return _opened(self._root, steps)
        return _opened(self._root, self._steps_below_root(path))

    def _steps_below_root(self, path: str) -> tuple[str, ...]:
        """
        The names that lead from the root to the file once every symbolic link is resolved; ``ValueError`` if none do.
        """
        # Not Path.resolve: it raises on a loop of links in some releases of Python, and in others does not.
        steps = Path(os.path.realpath(self._root / path)).relative_to(self._root).parts
        if not steps:
            raise UploadFailed(ErrorCode.REF_FORBIDDEN, "the path is fetch.file_root itself, not a file in it")
        return steps

    def _contents(self, file: int) -> bytes:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise UploadFailed(ErrorCode.REF_FORBIDDEN, "the path names no regular file")
        if status.st_size > self._max_image_bytes:
            raise self._too_large(status.st_size)
        contents = os.read(file, status.st_size + 1)
        # Of another size than it had a moment ago, it may have grown since, or have come in parts: up to its end, then.
        while len(contents) != status.st_size and (part := os.read(file, _READ_BYTES)):
            contents += part
            if len(contents) > self._max_image_bytes:
                break
        if len(contents) > self._max_image_bytes:
            raise self._too_large(len(contents))
        return contents

    def _too_large(self, found: int) -> UploadFailed:
        return UploadFailed(
            ErrorCode.FETCH_TOO_LARGE, f"the file has {found} bytes or more, at most {self._max_image_bytes} are read"
        )


def _opened(root: Path, steps: Sequence[str]) -> int:
    """
    A descriptor of the file, reached name by name without following any link.

    A link that somebody puts there after the path was checked is an error and no way out.
    """
    at = os.open(root, FOLDER)
    try:
        for name in steps[:-1]:
            following = os.open(name, FOLDER, dir_fd=at)
            os.close(at)
            at = following
        return os.open(steps[-1], REGULAR, dir_fd=at)
    finally:
        os.close(at)


def _failure(error: OSError, root: Path) -> UploadFailed:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR if not _has_files(root):
            # No file is the uploader's mistake while there is none at all. Known hole: a mount further below.
            return UploadFailed(
                ErrorCode.FETCH_UPSTREAM, "fetch.file_root is gone or empty; is what lies there not mounted?"
            )
        case errno.ENOENT | errno.ENOTDIR | errno.ENAMETOOLONG:
            return UploadFailed(ErrorCode.FETCH_NOT_FOUND, "there is no such file below fetch.file_root")
        case errno.EACCES | errno.EPERM:
            return UploadFailed(ErrorCode.FETCH_UNAUTHORIZED, "the worker may not read the file")
        case errno.ELOOP | errno.ENXIO:
            return UploadFailed(ErrorCode.REF_FORBIDDEN, "the path names no regular file")
        case _:
            return UploadFailed(ErrorCode.FETCH_UPSTREAM, f"the file could not be read: {error.strerror}")


def _has_files(root: Path) -> bool:
    try:
        with os.scandir(root) as found:
            return next(found, None) is not None
    except OSError:
        return False
