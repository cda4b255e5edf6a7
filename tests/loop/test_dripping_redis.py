"""
A Redis whose answers never end holds no verdict, and no worker that was told to stop.
"""

from contextlib import ExitStack, closing

from tests.loop_rig import Tuning, Worker
from tests.loop_world import World, eventually
from tests.speaking_redis import speaking
from tests.watched_cache import Watched

UPLOADS = 12


def test_an_answer_that_drips_holds_no_upload() -> None:
    """
    Every upload is judged by encoding it, the breaker opens, and the worker drains with nothing left behind.
    """
    dripping = [b"*4\r\n$1000000\r\n", *[b"x"] * 1_000_000]
    with ExitStack() as stack:
        url, _ = stack.enter_context(speaking(dripping))
        watched = stack.enter_context(closing(Watched(url, timeout_s=0.5, breaker_failures=2)))
        world = stack.enter_context(World())
        worker = Worker(world, Tuning(drain_timeout_s=20), cache=watched.cache)
        for number in range(UPLOADS):
            world.publish(f"upload-{number}", partition=number % 3)
        running = worker.start()
        eventually(lambda: len(world.verdicts()) == UPLOADS)
        report = running.drained()

        assert UPLOADS == len(world.verdicts())
        assert 0 == report.abandoned
        assert watched.requests()["error"] >= 1
