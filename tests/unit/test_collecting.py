"""
Python's garbage collector in a worker that runs.
"""

import gc

from worker.operation.collecting import COLLECT_AFTER, leave_to_stay


def test_the_collector_is_set_for_a_worker_and_set_back() -> None:
    """
    While a worker runs, what was there before is left alone, and collections are few; afterwards all is as it was.
    """
    before = gc.get_threshold(), gc.get_freeze_count()

    collect_as_before = leave_to_stay()
    meanwhile = gc.get_threshold(), gc.get_freeze_count() > 0
    collect_as_before()

    assert (COLLECT_AFTER, True) == meanwhile
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
