"""
How Python's garbage collector treats a worker that runs: what stays is left alone, what comes and goes seldom walked.
"""

import gc
from collections.abc import Callable
from typing import Final

COLLECT_AFTER: Final = (50_000, 20, 100)
"""Objects that were made and are not freed yet; then, collections of a generation before one of the next older."""


def leave_to_stay() -> Callable[[], None]:
    """
    Have the collector leave alone all that is there now; returns what takes that back, and how often it collects.

    torch, the model and the bank stay for good; without this each full collection walks over all of them again. Of what
    an upload leaves behind hardly anything is in a cycle, and is freed without a collector: looking for it with
    Python's own thresholds takes a fifteenth of the CPU time of an upload that is recalled.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)

    def collect_as_before() -> None:
        gc.set_threshold(*thresholds)
        # Or the interpreter would end without them, and triton's bindings complain of leaks on standard error.
        gc.unfreeze()

    return collect_as_before
