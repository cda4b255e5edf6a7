"""
What this machine's CPU can do by itself, as Linux tells it. Only asks; who needs what says the caller.
"""

from functools import cache
from pathlib import Path
from typing import Final

_LINES: Final = ("flags", "Features")
"""What the line is called on x86 and on ARM."""

INT8_X86: Final = frozenset({"avx512_vnni", "avx_vnni"})
INT8_ARM: Final = frozenset({"asimddp"})
"""Products of bytes, summed up without loss. Older instructions clip sums, and so give other numbers."""


@cache
def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """
    The names by which the kernel knows the CPU's features; none where it does not tell.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, features = line.partition(":")
        if name.strip() in _LINES:
            return frozenset(features.split())
    return frozenset()
