"""
The C library's heap, of which Python knows nothing.
"""

import ctypes


def give_back_memory() -> None:
    """
    Return what is free in the heap to the operating system, where the C library can (glibc); elsewhere do nothing.

    Needed after a bank is exchanged: glibc raises the size from which blocks are mapped alone each time a large one is
    freed (up to 32 MiB): later banks lie in the heap itself, and what is freed below a block that stays is held.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
