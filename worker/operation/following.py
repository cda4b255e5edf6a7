"""
A worker's watch over its place of releases, put together with its pipeline.

What it does is ``bank_watch.py``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from worker.adapters.system_clock import SystemClock
from worker.flow.bank_judge import BankJudge
from worker.flow.judging import Judge
from worker.instruments import Instruments
from worker.operation.active_release import open_releases
from worker.operation.bank_watch import BankWatch
from worker.ports import Recorder
from worker.settings.tree import Settings


@contextmanager
def bank_watching(settings: Settings, live: Instruments, *, recorder: Recorder) -> Iterator[BankWatch | None]:
    """
    The watch over the configured place of releases, not started yet; None where none is configured.
    """
    place = settings.bank.releases
    if place is None or live.release is None:
        yield None
        return
    watch = BankWatch(settings, live, open_releases(place, settings), clock=SystemClock(), recorder=recorder)
    try:
        yield watch
    finally:
        watch.close()


def followed(judge: BankJudge, watch: BankWatch | None, on_judge: Callable[[BankJudge], None]) -> Judge:
    """
    The judge that the pipeline asks: the one whose bank is exchanged, where releases are followed.

    ``on_judge`` is told this one, and each that is changed over to.
    """
    on_judge(judge)
    if watch is None:
        return judge
    watch.on_change = on_judge
    exchanged = watch.around(judge)
    watch.start()
    return exchanged
