"""
The campaigns of a soak, each with real workers on real servers of its own, each ending in a tally.

What they do is in ``worker_faults.py``, ``server_faults.py``, ``memory.py`` and ``fuzzing.py``; how much of it, in
``scale.py``. `make soak` runs all, `make test` their short forms.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.soak.fleet import Delivery, Fleet
from tests.soak.fuzzing import fuzzed
from tests.soak.memory import level
from tests.soak.rounds import Fault, run
from tests.soak.scale import Scale
from tests.soak.server_faults import broker_faults, rebalances, redis_faults
from tests.soak.tally import Tally
from tests.soak.two_brokers import TwoBrokers
from tests.soak.worker_faults import fences, freezes, kills, terminations
from tests.worker_rig import Instruments
from worker.dev.kafka_server import EmbeddedKafka
from worker.dev.redis_server import EmbeddedRedis

DELIVERIES: Sequence[Delivery] = ("at_least_once", "exactly_once")

Campaign = Callable[[Instruments, Path, Scale], Iterator[Tally]]


def killed(instruments: Instruments, folder: Path, scale: Scale) -> Iterator[Tally]:
    """
    SIGKILL, half of the rounds under each delivery.
    """
    for delivery in DELIVERIES:
        yield harmed(instruments, folder, delivery, lambda _: [kills()], scale.killing(1 / len(DELIVERIES)))


def stopped(instruments: Instruments, folder: Path, scale: Scale) -> Iterator[Tally]:
    """
    SIGTERM in every phase, SIGSTOP past the session, and where there are transactions, a fenced one.
    """

    def faults(redis: EmbeddedRedis) -> Sequence[Fault]:
        return [*terminations(redis), freezes()]

    def and_fenced(redis: EmbeddedRedis) -> Sequence[Fault]:
        return [*faults(redis), fences()]

    for delivery in DELIVERIES:
        yield harmed(instruments, folder, delivery, and_fenced if delivery == "exactly_once" else faults, scale)


def broken_servers(instruments: Instruments, folder: Path, scale: Scale) -> Iterator[Tally]:
    """
    Brokers, coordinator, group and Redis, under each delivery.
    """
    for delivery in DELIVERIES:
        yield servers_harmed(instruments, folder, scale, delivery=delivery)


def servers_harmed(instruments: Instruments, folder: Path, scale: Scale, *, delivery: Delivery) -> Tally:
    """
    One worker on two brokers and a Redis that are harmed in turn.
    """
    with TwoBrokers() as brokers, EmbeddedRedis() as redis:
        servers, group = (brokers.bootstrap_servers, redis.url), brokers.group()
        faults = [*redis_faults(redis), rebalances(), *broker_faults(brokers)]
        with Fleet(servers, instruments, folder, delivery=delivery, group=group) as fleet:
            fleet.start("one")
            title = f"brokers, group, Redis, {delivery}"
            return run(fleet, faults, campaign=title, rounds=scale.rounds, wave=scale.wave)


def harmed(
    instruments: Instruments,
    folder: Path,
    delivery: Delivery,
    faults: Callable[[EmbeddedRedis], Sequence[Fault]],
    scale: Scale,
) -> Tally:
    """
    Two workers that are harmed, on servers of their own.
    """
    with EmbeddedKafka() as kafka, EmbeddedRedis() as redis:
        servers, done = (kafka.bootstrap_servers, redis.url), faults(redis)
        with Fleet(servers, instruments, folder, delivery=delivery) as fleet:
            fleet.start("one", "two")
            kinds = ", ".join(dict.fromkeys(fault.name.partition(" while ")[0] for fault in done))
            return run(fleet, done, campaign=f"{kinds}, {delivery}", rounds=scale.rounds, wave=scale.wave)


CAMPAIGNS: Mapping[str, Campaign] = {
    "kill": killed,
    "stop": stopped,
    "servers": broken_servers,
    "memory": level,
    "fuzz": fuzzed,
}
