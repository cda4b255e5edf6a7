"""
A folder beside a bank in which it is made: one process at a time has it, and whoever has it next clears it away.

Its name is told by the bank's, so that what a killed run left is found; what is in it, its user says.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import BankInvalid


def take_folder(path: Path) -> int:
    """
    Make a folder if need be and lock it; the lock goes with the descriptor that is returned, or with the process.

    Raises ``BankInvalid`` where another process has it.
    """
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            # Whoever had it removed it in this moment.
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            os.close(lock)
            raise BankInvalid(f"{path} is in use by another build; wait for it, or choose another --out") from fault
        if _is_still(path, lock):
            return lock
        # Locked was a folder that its last user had removed already, and not the one that has the name now.
        os.close(lock)


@contextmanager
def own_folder(path: Path) -> Iterator[Path]:
    """
    An empty folder of this name that is gone afterwards, however it ends. Raises ``BankInvalid`` as ``take_folder``.
    """
    lock = take_folder(path)
    try:
        clear(path)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def clear(path: Path) -> None:
    """
    Remove everything in a folder.
    """
    for found in path.iterdir():
        if found.is_dir() and not found.is_symlink():
            shutil.rmtree(found)
        else:
            found.unlink()


def _is_still(path: Path, lock: int) -> bool:
    mine = os.fstat(lock)
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino)
