"""
The queues between the stages: made here, so that how many wait and how long can be told of each.
"""

from typing import TypeVar

from worker.flow.coming import Coming
from worker.flow.inbox import Inbox, WaitWatch
from worker.flow.micro_batch import MicroBatcher
from worker.ports import Clock, Recorder

T = TypeVar("T")


class Queues:
    """
    Makes each queue under the name of the stage that it waits for, and closes them together.
    """

    def __init__(self, *, clock: Clock, recorder: Recorder) -> None:
        self._clock = clock
        self._recorder = recorder
        self._made: dict[str, Inbox[object] | MicroBatcher[object]] = {}

    def inbox(self, stage: str, *, readers: int = 1, coming: Coming | None = None) -> Inbox[T]:
        """
        A queue for ``readers`` threads; those in it or taken from it count as ``coming``.
        """
        made: Inbox[T] = Inbox(readers=readers, watch=self._watch(stage), coming=coming)
        self._made[stage] = made  # type: ignore[assignment] # it is only counted and closed here
        return made

    def batcher(
        self, stage: str, *, size: int, deadline_s: float, coming: Coming | None = None, takers: int = 1
    ) -> MicroBatcher[T]:
        """
        A queue that gives micro-batches to so many ``takers``; ``coming`` are those who may still fill one.
        """
        made: MicroBatcher[T] = MicroBatcher(
            size=size, deadline_s=deadline_s, clock=self._clock, watch=self._watch(stage), coming=coming, takers=takers
        )
        self._made[stage] = made  # type: ignore[assignment] # likewise
        return made

    def waiting(self) -> dict[str, int]:
        """
        How many wait for each stage at this moment; any thread may ask.
        """
        return {stage: len(queue) for stage, queue in self._made.items()}

    def close(self) -> None:
        """
        Let every reader finish what is queued, and end.
        """
        for queue in self._made.values():
            queue.close()

    def _watch(self, stage: str) -> WaitWatch:
        return WaitWatch(stage, self._clock, self._recorder)
