"""
How much CPU time processes and the whole machine have taken, as Linux counts it.

A process's tree counts: decoders are children of the worker. What has ended counts once its parent has waited for it.
"""

import os
import resource
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")

_NICE_TO_STEAL: Final = (0, 1, 2, 5, 6, 7)
"""Of the line ``cpu`` of /proc/stat: user, nice, system, irq, softirq, steal; idle and iowait are left out."""


def cores_here() -> int:
    """
    How many cores this process may run on.
    """
    return len(os.sched_getaffinity(0))


def process_cpu_s() -> float:
    """
    CPU seconds of this process alone so far, in user and system mode.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def own_cpu_s() -> float:
    """
    CPU seconds of this process so far, in user and system mode, its living and its ended children counted in.
    """
    return cpu_s_of_trees([os.getpid()]) if _living_children(os.getpid()) else process_cpu_s() + _ended_children_s()


def cpu_s_of_trees(pids: Iterable[int]) -> float:
    """
    CPU seconds of these processes so far with all their descendants; one that is gone counts for nothing.
    """
    counted: set[int] = set()
    return sum(_tree_s(pid, counted) for pid in pids)


def cpu_s_of_machine() -> float:
    """
    CPU seconds that anybody has used on this machine so far, over all cores.
    """
    first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    return sum(int(first[at]) for at in _NICE_TO_STEAL) / TICKS_PER_S


def _ended_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tree_s(pid: int, counted: set[int]) -> float:
    if pid in counted:
        return 0.0
    counted.add(pid)
    if pid == os.getpid():  # finer than the kernel's ticks
        return process_cpu_s() + _ended_children_s() + sum(_tree_s(child, counted) for child in _living_children(pid))
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # The name may hold anything, but ends with the last parenthesis; behind it utime, stime, cutime and cstime.
    fields = stat.rpartition(")")[2].split()
    own_s = sum(int(field) for field in fields[11:15]) / TICKS_PER_S
    return own_s + sum(_tree_s(child, counted) for child in _living_children(pid))


def _living_children(pid: int) -> list[int]:
    return list(_children(pid))


def _children(pid: int) -> Iterator[int]:
    # A thread may end between being listed and being read, and so may the process.
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                yield from map(int, (thread / "children").read_text(encoding="ascii").split())
