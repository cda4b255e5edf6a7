"""
Putting a finished directory in another's place, so that at no moment a half-written one has the name.
"""

import ctypes
import errno
import os
import shutil
from pathlib import Path
from typing import Final

from worker.bank.manifest import MANIFEST
from worker.errors import BankInvalid

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_NOT_SUPPORTED: Final = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def put_in_place(fresh: Path, target: Path, *, replace: bool) -> None:
    """
    Give the directory ``fresh`` the name ``target``; both must be on one file system.

    A target that is there is exchanged in one step (Linux renameat2) and then removed. Where the system cannot
    exchange, it is renamed to ``NAME.old`` first, and only a crash between the two renames leaves it there.
    Raises ``BankInvalid`` when the target is there and ``replace`` is false.
    """
    if target.exists() and not replace:
        raise BankInvalid(refusal(target))
    _sync_directory(fresh)
    if not target.exists():
        _first(fresh, target)
    elif _exchange(fresh, target):
        shutil.rmtree(fresh)
    else:
        old = target.with_name(target.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        fresh.rename(target)
        shutil.rmtree(old)
    _sync_directory(target.parent)


def require_replaceable(target: Path) -> None:
    """
    Refuse to replace what is no bank: it would be removed with all that is in it. Raises ``BankInvalid``.
    """
    if target.exists() and not (target / MANIFEST).is_file():
        raise BankInvalid(
            f"{target} is there and is no bank (it has no {MANIFEST}), so it is not replaced; choose another --out"
        )


def refusal(target: Path) -> str:
    """
    Why an existing target is left alone.
    """
    return f"{target} is there already; choose another --out, or pass --replace to put the new bank in its place"


def _first(fresh: Path, target: Path) -> None:
    try:
        fresh.rename(target)
    except OSError as fault:
        if fault.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        # Somebody put another one there since it was looked for.
        raise BankInvalid(refusal(target)) from fault


def _exchange(one: Path, other: Path) -> bool:
    """
    Swap two names in one step; False where the system or the file system cannot.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_SUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
