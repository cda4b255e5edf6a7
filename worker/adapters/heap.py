"""
The C library's heap, of which Python knows nothing.
"""

import ctypes
from typing import Final

# Of glibc's malloc.h, and the most that it ever sets them to by itself.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 64 << 20
_LARGEST_KEPT_BYTES: Final = 32 << 20


def keep_freed_memory() -> bool:
    """
    Keep up to 64 MiB of what is freed in each heap for what is wanted next; whether the C library does (glibc).

    For the whole process, and for blocks below 32 MiB. Else the activations of every micro-batch go back to the kernel,
    which finds and clears them again for the next: some 500 page faults for a picture of ViT-B/32, and up to a
    twentieth of its time. glibc raises these limits by itself as large blocks are freed, but not by enough for that.
    """
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    if change is None:
        return False
    # Both: naming the one ends that the library raises the other.
    return bool(change(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)) and bool(change(_M_TRIM_THRESHOLD, _KEPT_BYTES))


def give_back_memory() -> None:
    """
    Return what is free in the heap to the operating system, where the C library can (glibc); elsewhere do nothing.

    Needed after a bank is exchanged: glibc raises the size from which blocks are mapped alone each time a large one is
    freed (up to 32 MiB): later banks lie in the heap itself, and what is freed below a block that stays is held.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
