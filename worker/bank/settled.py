"""
A bank's directory that may be replaced while it is read: it is read once more then, instead of being called damaged.

How one is put in another's place is ``worker.bank.swap``; the reading itself is told by the caller.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from worker.bank.manifest import MANIFEST
from worker.bank.manifest_checks import MAX_MANIFEST_BYTES
from worker.bank.regular_files import FileRefused, read_whole
from worker.errors import BankInvalid, ReadFault

Read = TypeVar("Read")


def read_settled(path: Path, read: Callable[[], Read]) -> Read:
    """
    What ``read`` makes of a bank's directory; where it refuses a bank that was replaced meanwhile, it is asked again.

    Half of it was then read of the old bank and half of the new one, and neither is damaged. Raises as ``read``.
    """
    before = _manifest(path)
    try:
        return read()
    except BankInvalid:
        if _manifest(path) == before:
            raise
    return read()


def _manifest(path: Path) -> bytes | None:
    try:
        return read_whole(path / MANIFEST, most_bytes=MAX_MANIFEST_BYTES)
    except (FileRefused, ReadFault):
        return None
