"""
How much memory processes hold, as Linux counts it: what is theirs alone, and what they share with others.

Children count with their parent: decoders are the worker's. Memory on an accelerator is not in it.
"""

import resource
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression
from typing import Final

_KIB: Final = 1024
MEBI: Final = 1 << 20
_LEAST_SAMPLES: Final = 3


@dataclass(frozen=True, slots=True)
class Held:
    """
    Three answers, none of which depends on nobody: what these processes would hold alone lies between the first two.

    ``resident_bytes``: all that is in memory of each process, whoever shares it (RSS): what they share with each other
    counts several times. ``private_bytes``: what would be free if the processes ended. ``proportional_bytes``: pages
    that several processes map are divided among them (PSS): too little where whoever measures maps the same libraries.
    ``file_bytes``: of the proportional ones those that are pages of files, such as libraries, which the kernel may drop
    and read again.
    """

    resident_bytes: int
    private_bytes: int
    proportional_bytes: int
    file_bytes: int


def held_by(pids: Iterable[int]) -> Held:
    """
    What these processes hold together; one that is gone holds nothing.

    Of one that lets only root look closer, as decoders do, what it shares with others is in the resident bytes alone.
    """
    found = [_looked_at(pid) for pid in pids]
    return Held(
        resident_bytes=sum(one.resident_bytes for one in found),
        private_bytes=sum(one.private_bytes for one in found),
        proportional_bytes=sum(one.proportional_bytes for one in found),
        file_bytes=sum(one.file_bytes for one in found),
    )


def growth_per(uploads: int, samples: Sequence[tuple[int, float]]) -> float | None:
    """
    By how much memory grows in so many uploads: the slope of a line through ``samples`` of uploads answered and memory.

    None for fewer than three samples, or where all were taken at one number of uploads.
    """
    if len(samples) < _LEAST_SAMPLES or len({at for at, _ in samples}) == 1:
        return None
    return uploads * linear_regression(*zip(*samples, strict=True)).slope


def peak_bytes(pid: int) -> int:
    """
    The most that one process ever had resident; 0 where it is gone.
    """
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * _KIB
    return 0


def tree_of(pid: int) -> list[int]:
    """
    A process and all its descendants, those that are there at this moment.
    """
    return [pid, *(below for child in _children(pid) for below in tree_of(child))]


def _looked_at(pid: int) -> Held:
    with suppress(FileNotFoundError, ProcessLookupError):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
        except PermissionError:
            _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split())
            page = resource.getpagesize()
            return Held(resident * page, (resident - shared) * page, (resident - shared) * page, 0)
        kib = {name.removesuffix(":"): int(value) for name, value, *_ in map(str.split, lines)}
        private = kib["Private_Clean"] + kib["Private_Dirty"]
        return Held(kib["Rss"] * _KIB, private * _KIB, kib["Pss"] * _KIB, kib.get("Pss_File", 0) * _KIB)
    return Held(0, 0, 0, 0)


def _children(pid: int) -> Iterator[int]:
    # A thread may end between being listed and being read, and so may the process.
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                yield from map(int, (thread / "children").read_text(encoding="ascii").split())
