"""
What is done to the workers themselves: killed, told to stop in every phase, frozen past their session, fenced.
"""

import os
import signal
import threading
from collections.abc import Callable, Collection, Sequence

from confluent_kafka import Producer

from tests.platform_side import SILENT
from tests.servers import eventually
from tests.soak.fleet import Fleet
from tests.soak.rounds import Fault
from tests.soak.server_faults import Stranger
from tests.soak.watching import PATIENCE_S
from worker.dev.redis_server import EmbeddedRedis
from worker.errors import EXIT_CRASHED

EXTRA = "extra"
"""A worker that comes only to be told to stop."""

TERMINATED = (-signal.SIGTERM, 128 + signal.SIGTERM)


def kills() -> Fault:
    """
    SIGKILL to one worker after another; a new one takes over its name, and has loaded before the next is killed.
    """

    def begin(fleet: Fleet, number: int) -> None:
        name = turn_of(fleet, number)
        fleet.workers[name].process.kill()
        assert fleet.workers[name].wait() == -signal.SIGKILL
        fleet.start(name)

    return Fault("SIGKILL", begin, lambda fleet, number: fleet.workers[turn_of(fleet, number)].until_started())


def freezes() -> Fault:
    """
    SIGSTOP until the group has expelled it, and on again in the belief that all is as it was.
    """

    def begin(fleet: Fleet, number: int) -> None:
        fleet.workers[turn_of(fleet, number)].signal(signal.SIGSTOP)
        others = len(fleet.workers) - 1
        assert eventually(lambda: len(fleet.cluster.shares()) == others, deadline_s=PATIENCE_S), fleet.rig.text()

    def end(fleet: Fleet, number: int) -> None:
        fleet.workers[turn_of(fleet, number)].signal(signal.SIGCONT)
        fleet.until_consuming()

    return Fault("frozen past its session", begin, end)


def fences() -> Fault:
    """
    Another producer takes over the worker's transactional id: it leaves with 4, and its successor goes on.
    """

    def begin(fleet: Fleet, number: int) -> None:
        transactional_id = f"{fleet.rig.settings.kafka.group_id}-{turn_of(fleet, number)}"
        other = Producer(
            {"bootstrap.servers": fleet.rig.bootstrap_servers, "transactional.id": transactional_id, **SILENT}
        )
        other.init_transactions(PATIENCE_S)

    def end(fleet: Fleet, number: int) -> None:
        name = turn_of(fleet, number)
        fenced = fleet.workers[name]
        require_exit(fleet, name, {EXIT_CRASHED})
        fleet.note_crash(name, fenced)
        fleet.start(name)
        fleet.until_consuming()

    return Fault("transaction fenced", begin, end, may_crash=True)


def terminations(redis: EmbeddedRedis, *phases: str) -> Sequence[Fault]:
    """
    SIGTERM while a worker loads, joins, works, is idle or is rebalanced, while Redis says nothing, and while it drains.

    All of them, unless ``phases`` names some.

    A broker that says nothing: tests/integration/test_worker_hung_broker.py, for there the exit code may be 4.
    """

    def loading(fleet: Fleet, number: int) -> None:
        fleet.workers[EXTRA] = fleet.rig.start(EXTRA)
        # From the first import to the last: no log line tells how far it is.
        threading.Event().wait(0.5 + 7.0 * (number * 0.618 % 1.0))
        told_to_stop(fleet, EXTRA, {0, *TERMINATED})

    def joining(fleet: Fleet, number: int) -> None:
        fleet.workers[EXTRA] = fleet.rig.start(EXTRA)
        fleet.workers[EXTRA].until_started()
        told_to_stop(fleet, EXTRA, {0})

    def idle(fleet: Fleet, number: int) -> None:
        assert fleet.until_answered(fleet.published), fleet.rig.text()
        working(fleet, number)

    def working(fleet: Fleet, number: int) -> None:
        name = turn_of(fleet, number)
        told_to_stop(fleet, name, {0})
        fleet.start(name)

    def draining(fleet: Fleet, number: int) -> None:
        name = turn_of(fleet, number)
        fleet.workers[name].signal(signal.SIGTERM)
        # Whoever had little to finish is gone before the second signal.
        told_to_stop(fleet, name, {0, *TERMINATED})
        fleet.start(name)

    def rebalanced(fleet: Fleet, number: int) -> None:
        stranger = Stranger(fleet)
        working(fleet, number)
        stranger.leave()

    def unheard(fleet: Fleet, number: int) -> None:
        os.kill(redis.pid, signal.SIGSTOP)
        try:
            working(fleet, number)
        finally:
            os.kill(redis.pid, signal.SIGCONT)

    def back(fleet: Fleet, _number: int) -> None:
        fleet.until_consuming()

    begins: Sequence[tuple[str, Callable[[Fleet, int], None]]] = (
        ("loading", loading),
        ("joining", joining),
        ("working", working),
        ("idle", idle),
        ("rebalanced", rebalanced),
        ("Redis is frozen", unheard),
        ("draining", draining),
    )
    wanted = phases or tuple(phase for phase, _ in begins)
    return [Fault(f"SIGTERM while {phase}", begin, back) for phase, begin in begins if phase in wanted]


def turn_of(fleet: Fleet, number: int) -> str:
    """
    Whose turn it is in this round.
    """
    names = sorted(name for name in fleet.workers if name != EXTRA)
    return names[number % len(names)]


def told_to_stop(fleet: Fleet, name: str, codes: Collection[int]) -> None:
    """
    SIGTERM, and one of these exit codes.
    """
    fleet.workers[name].signal(signal.SIGTERM)
    require_exit(fleet, name, codes)


def require_exit(fleet: Fleet, name: str, codes: Collection[int]) -> None:
    """
    The worker ends with one of these codes, and is no longer of the fleet.
    """
    worker = fleet.workers.pop(name)
    code = worker.wait(PATIENCE_S)
    assert code in codes, f"{name} left with {code}; it logged:\n{worker.text()}"
