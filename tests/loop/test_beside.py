"""
A thread beside the pipeline that dies ends the worker, as one of the pipeline's own does.
"""

import pytest

from tests.loop_rig import Worker
from tests.loop_world import World
from worker.errors import WorkerCrashed
from worker.flow.beside import WatchedFlow
from worker.flow.crew import Crew


def test_a_thread_that_dies_beside_ends_the_worker(world: World) -> None:
    """
    While it lives all goes through to the pipeline; once it has died the next check raises, and names it.
    """
    worker, crew = Worker(world), Crew()
    flow = WatchedFlow(worker.pipeline, [lambda: None, crew.check])
    flow.check()
    room = flow.has_room

    def die() -> None:
        raise ValueError("no more")

    crew.start("forget", die)
    crew.join(60)

    with pytest.raises(WorkerCrashed, match="thread forget died: ValueError: no more"):
        flow.check()
    assert room
    worker.pipeline.check()
