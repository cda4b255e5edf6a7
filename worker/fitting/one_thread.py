"""
Linear algebra on one thread while a judgement is fitted, so that a fit is the same under any ``OMP_NUM_THREADS``.

Torch has threads of its own; ``worker.fitting.contrastive_training`` holds those.
"""

from contextlib import AbstractContextManager

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # it has no stubs


def one_thread() -> AbstractContextManager[object]:
    """
    BLAS and OpenMP pools of this process at one thread within, and as they were after.

    Sums that are split over threads end in other bits, and those in another judgement id.
    """
    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits
