"""
What a decoding child may still do, taken from it by itself before it sees its first picture.

Limits of the kernel, for the process that calls them: nothing here can be given back. What a container adds, such as a
seccomp profile or a network of its own, is the deployment's affair.
"""

import contextlib
import ctypes
import math
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Final

_SET_PDEATHSIG: Final = 1
_SET_DUMPABLE: Final = 4
_SET_NO_NEW_PRIVS: Final = 38

MOST_FILES: Final = 64
FIRST_TO_KILL: Final = b"1000"
"""Of the kernel's killer, when memory runs out: a child is lost before the worker is."""


def end_with_parent(parent_pid: int) -> None:
    """
    Be killed when the thread that started us ends, also by SIGKILL. Ends this process where that is so already.
    """
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit("the parent is gone")
    # The parent drains when it is told to stop, and needs us for it: it ends us itself.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def drop_descriptors() -> None:
    """
    Keep standard input, output and error; a full pipe of errors loses what does not fit, and blocks nobody.
    """
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    os.set_blocking(2, False)


def confine(*, memory_bytes: int, cpu_s: float) -> None:
    """
    From here on: bounded memory and CPU time, no files written, few opened, no core dump, no new rights.

    ``memory_bytes`` is the address space beyond what is mapped already; ``cpu_s`` is for all that is still to come.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(FIRST_TO_KILL)
    _limit(resource.RLIMIT_AS, _mapped_bytes() + memory_bytes)
    _limit(resource.RLIMIT_CPU, math.ceil(_used_cpu_s() + cpu_s))
    _limit(resource.RLIMIT_NOFILE, MOST_FILES)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    # A core that is piped to a program ignores its limit; what cannot be dumped cannot be traced either.
    _prctl(_SET_DUMPABLE, 0)
    _prctl(_SET_NO_NEW_PRIVS, 1)


def allow_cpu(cpu_s: float) -> None:
    """
    Let this process use at most so much more CPU time, in whole seconds: then SIGXCPU ends it.

    The parent's clock ends it sooner, as long as there is a parent that looks at it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(_used_cpu_s() + cpu_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def _used_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value}) was refused")
