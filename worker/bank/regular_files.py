"""
The files of a directory that nobody vouches for: opened without following links, bounded before they are read.

What belongs into a bank's directory is said in ``worker.bank.files``.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Final, NoReturn

from worker.errors import ReadFault

PIECE_BYTES: Final = 1_048_576
"""Read at once: no other thread has its turn meanwhile, and uploads may be flowing."""

HIDDEN: Final = "."
"""First letter of names that a file server or a desktop leaves; nothing of ours begins so, and nothing reads them."""

_NAMED: Final = 5


WRONG_FILE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV, errno.ENAMETOOLONG})
"""What is not there, or is no file; whatever else goes wrong may pass: a mount that was lost, a worn-out disk."""


class FileRefused(Exception):
    """
    A file that is not read; the text goes on after the file's name.
    """


@contextmanager
def opened(path: Path, *, most_bytes: int) -> Iterator[FileIO]:
    """
    A regular file of at most so many bytes, for reading, unbuffered. Raises ``FileRefused`` and ``ReadFault``.
    """
    try:
        # Without waiting: a pipe of that name would otherwise hold up whoever opens it until somebody writes.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as fault:
        if fault.errno == errno.ELOOP:
            raise FileRefused("is a symbolic link, expected a regular file; copy what it points to") from fault
        if fault.errno in WRONG_FILE:
            raise FileRefused(f"cannot be read ({fault.strerror})") from fault
        unread(path, fault)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise FileRefused(f"is {_kind(found.st_mode)}, expected a regular file")
    with FileIO(descriptor) as file:
        if found.st_size > most_bytes:
            raise FileRefused(f"has {found.st_size} bytes, expected at most {most_bytes}; nothing of it was read")
        try:
            yield file
        except OSError as fault:
            unread(path, fault)


def unread(path: Path, fault: OSError) -> NoReturn:
    """
    Raise ``ReadFault``: what went wrong says nothing of what is in the file.
    """
    raise ReadFault(
        f"{path} cannot be read at this moment ({fault.strerror or fault}), which says nothing of what is in it; check "
        "the disk or mount that it lies on and whether this user may read it, then try again"
    ) from fault


def read_whole(path: Path, *, most_bytes: int) -> bytes:
    """
    A regular file's bytes. Raises ``FileRefused`` and ``ReadFault``.
    """
    with opened(path, most_bytes=most_bytes) as file:
        pieces = []
        while piece := file.read(PIECE_BYTES):
            pieces.append(piece)
            if sum(map(len, pieces)) > most_bytes:
                raise FileRefused(f"grew beyond {most_bytes} bytes while it was read")
        return b"".join(pieces)


def digest_of(path: Path, *, most_bytes: int) -> str:
    """
    The sha256 of a regular file, in hex. Raises ``FileRefused`` and ``ReadFault``.
    """
    with opened(path, most_bytes=most_bytes) as file:
        digest = hashlib.sha256()
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
        return digest.hexdigest()


def sum_line(name: str, data: bytes) -> bytes:
    """
    The line that ``sha256sum NAME`` prints for these bytes, which vouches for a file that nothing else vouches for.
    """
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()


def sum_problem(name: str, data: bytes, said: bytes) -> str | None:
    """
    Why a file is not what its checksum file says; None where it is.
    """
    expected = sum_line(name, data)
    if said == expected:
        return None
    shown = said[:64].decode("ascii", "replace").rstrip()
    return (
        f"{name} has sha256 {expected[:64].decode()}, {sum_name(name)} says {shown or 'nothing'}: one of the two files "
        "is damaged or was changed by hand; copy the bank again"
    )


def sum_name(name: str) -> str:
    """
    Where the checksum of a file is kept: ``manifest.sha256`` for ``manifest.json``.
    """
    return f"{Path(name).stem}.sha256"


def strays(folder: Path, known: Collection[str]) -> Iterator[str]:
    """
    Every name in a directory that is not known, hidden ones aside; the first few, and then how many more.
    """
    with os.scandir(folder) as found:
        unknown = sorted(one.name for one in found if one.name not in known and not one.name.startswith(HIDDEN))
    for name in unknown[:_NAMED]:
        yield f"{name[:80]!r} is no file of a bank; move it elsewhere"
    if len(unknown) > _NAMED:
        yield f"and {len(unknown) - _NAMED} more files that are none of a bank"


def _kind(mode: int) -> str:
    for is_it, name in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if is_it(mode):
            return name
    return "a device"
