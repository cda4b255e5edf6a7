"""
Threads that run beside the pipeline, and take the process down when they die, as its own do.
"""

from collections.abc import Callable, Sequence

from worker.flow.lines import Slot
from worker.flow.loop import Flow
from worker.outcomes import Outcome


class WatchedFlow:
    """
    A ``Flow`` whose ``check`` also asks after whatever runs beside it.
    """

    def __init__(self, flow: Flow, checks: Sequence[Callable[[], None]]) -> None:
        self._flow = flow
        self._checks = tuple(checks)
        self.submit: Callable[[Sequence[Slot]], None] = flow.submit
        self.take_settled: Callable[[], Sequence[tuple[Slot, Outcome]]] = flow.take_settled
        self.close: Callable[[float], None] = flow.close

    @property
    def has_room(self) -> bool:
        """
        As the pipeline says.
        """
        return self._flow.has_room

    def check(self) -> None:
        """
        Raise if a thread of the pipeline has died, or one beside it.
        """
        self._flow.check()
        for check in self._checks:
            check()
