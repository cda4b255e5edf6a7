"""
How the cores are shared out among libraries that bring threads of their own: the encoder computes, others have one.

Of the rest, OpenCV's pool is switched off where it is imported (``worker/adapters/realism_statistics.py``), decoders
are processes that are given one thread, and the encoder's threads are ``encoder.threads``. Two pools that want all
cores wait for each other at the end of every operation.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # it has no stubs

from worker.encoders import encodes_on_gpu
from worker.settings.tree import Settings


def search_threads(settings: Settings) -> int:
    """
    Threads of one search: as configured in ``bank.search_threads``, else one beside an encoder that takes the cores.

    Beside an encoder on a GPU it is as many as decoding leaves.
    """
    if settings.bank.search_threads:
        return settings.bank.search_threads
    if not encodes_on_gpu(settings.encoder):
        return 1
    return max(1, len(os.sched_getaffinity(0)) - settings.decode.threads)


@contextmanager
def cores_shared_out(settings: Settings) -> Iterator[Callable[[], None]]:
    """
    One thread for linear algebra in the whole process, within; it was as it is again, after.

    What it gives is to be called by each thread that searches: OpenMP, with which FAISS and torch compute, counts the
    threads of each thread by itself.
    """
    with threadpool_limits(1, user_api="blas"):
        yield partial(_search_with, search_threads(settings))


def _search_with(threads: int) -> None:
    from worker.adapters.clip_device import torch_threads  # noqa: PLC0415 - torch is there by now, or takes seconds

    torch_threads()  # torch sets the count of a thread when that first asks: it must not be after us
    threadpool_limits(threads, user_api="openmp")
