"""
How much processor time other processes have taken, for tests that measure what something costs.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def cpu_s_of(pids: Iterable[int]) -> float:
    """
    CPU seconds of these processes so far, in user and system mode; one that is gone counts for nothing.
    """
    return sum(map(_cpu_s, pids))


def _cpu_s(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # The name may hold anything, but ends with the last parenthesis.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
