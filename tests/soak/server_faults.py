"""
What is done to the servers: brokers restarted, gone, frozen, robbed of the group; a Redis killed, frozen, full, forged.
"""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from kafka import KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from redis import Redis

from tests.platform_side import DEADLINE_S
from tests.servers import eventually
from tests.soak.fleet import SESSION_S, Fleet
from tests.soak.rounds import Fault
from tests.soak.two_brokers import TwoBrokers
from worker.dev.redis_server import EmbeddedRedis

AWAY_S = SESSION_S + 2.0
FROZEN_REDIS_S = 2.0
STUTTER_S = 0.1


def broker_faults(brokers: TwoBrokers) -> Sequence[Fault]:
    """
    Of both brokers at once, but for the coordinator's: the other one takes its group over.
    """
    return [
        Fault("brokers restarted", lambda _fleet, _number: brokers.restart()),
        Fault(
            "brokers away",
            lambda *_: brokers.stop(),
            lambda *_: _after(AWAY_S, brokers.start),
            sends=False,
            may_crash=True,
        ),
        Fault(
            "brokers frozen",
            lambda *_: brokers.signal(signal.SIGSTOP),
            lambda *_: _after(AWAY_S, lambda: brokers.signal(signal.SIGCONT)),
            sends=False,
            may_crash=True,
        ),
        Fault("coordinator stopped", lambda *_: brokers.second.stop(), lambda *_: brokers.bring_second_back()),
        Fault("coordinator killed", lambda *_: brokers.kill_second(), lambda *_: brokers.bring_second_back()),
    ]


def rebalances() -> Fault:
    """
    A stranger joins the group while pictures are embedded, takes its share, answers nothing, and leaves.
    """
    strangers: list[Stranger] = []

    def begin(fleet: Fleet, _number: int) -> None:
        strangers.append(Stranger(fleet))
        assert eventually(lambda: strangers[-1].share > 0, deadline_s=DEADLINE_S), fleet.rig.text()

    return Fault("rebalance", begin, lambda *_: strangers.pop().leave())


class Stranger:
    """
    A member of the group that commits nothing.
    """

    def __init__(self, fleet: Fleet) -> None:
        kafka = fleet.rig.settings.kafka
        self.share = 0
        self._leaving = threading.Event()
        self._consumer: Any = KafkaConsumer(
            bootstrap_servers=fleet.rig.bootstrap_servers,
            group_id=kafka.group_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            partition_assignment_strategy=[CooperativeStickyAssignor()],
            session_timeout_ms=SESSION_S * 1000,
        )
        self._consumer.subscribe([kafka.topics.uploads])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with closing(self._consumer):
            while not self._leaving.is_set():
                self._consumer.poll(timeout_ms=100)
                self.share = len(self._consumer.assignment())

    def leave(self) -> None:
        """
        It has left the group.
        """
        self._leaving.set()
        self._thread.join(DEADLINE_S)


def redis_faults(server: EmbeddedRedis) -> Sequence[Fault]:
    """
    No answer, late answers, no room, other people's bytes, nothing: none of them is an upload's affair.
    """
    stutter = Stutter(server)
    return [
        Fault("Redis killed", lambda *_: server.kill(), lambda *_: server.start()),
        Fault(
            "Redis frozen",
            lambda *_: os.kill(server.pid, signal.SIGSTOP),
            lambda *_: _after(FROZEN_REDIS_S, lambda: os.kill(server.pid, signal.SIGCONT)),
        ),
        Fault("Redis slow", lambda *_: stutter.begin(), lambda *_: _after(FROZEN_REDIS_S, stutter.end)),
        Fault("Redis full", _told(server, _fill), _told(server, _empty)),
        Fault("Redis forged", _told(server, _forge)),
        Fault("Redis flushed", _told(server, lambda client, _namespace: client.flushall())),
    ]


class Stutter:
    """
    A thread that stops a server again and again for a moment: it answers all, late.
    """

    def __init__(self, server: EmbeddedRedis) -> None:
        self._server = server
        self._ending = threading.Event()
        self._thread = threading.Thread()

    def begin(self) -> None:
        """
        From now on it is slow.
        """
        self._ending.clear()
        self._thread = threading.Thread(target=self._run, args=(self._server.pid,), daemon=True)
        self._thread.start()

    def _run(self, pid: int) -> None:
        while not self._ending.wait(STUTTER_S / 4):
            os.kill(pid, signal.SIGSTOP)
            self._ending.wait(STUTTER_S)
            os.kill(pid, signal.SIGCONT)

    def end(self) -> None:
        """
        It is as quick as before.
        """
        self._ending.set()
        self._thread.join(DEADLINE_S)


def _told(server: EmbeddedRedis, do: Callable[[Any, str], object]) -> Callable[[Fleet, int], None]:
    def told(fleet: Fleet, _number: int) -> None:
        with Redis.from_url(server.url, socket_timeout=DEADLINE_S) as client:
            do(client, fleet.rig.settings.redis.namespace)

    return told


def _fill(client: Any, _namespace: str) -> None:  # noqa: ANN401 - one client for several answers
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1")


def _empty(client: Any, _namespace: str) -> None:  # noqa: ANN401 - as above
    client.config_set("maxmemory", "0")


def _forge(client: Any, namespace: str) -> None:  # noqa: ANN401 - as above
    found = list(client.scan_iter(match=f"*{namespace}*", count=1000))
    assert found, f"no key of {namespace} to forge"
    for at, key in enumerate(found):
        kind = client.type(key)
        if kind == b"set":
            # Beside what was there: halves of it, no text, nothing, and more than anybody would write.
            halves = [member[: len(member) // 2] for member in client.smembers(key)]
            client.sadd(key, *halves, b"\xff\xfe", b"", os.urandom(4096))
        elif kind == b"string" and (kept := client.get(key)):
            # Noise of the same length, a part of what was there, or it with one bit flipped.
            forged = (os.urandom(len(kept)), kept[: len(kept) // 2], bytes([kept[0] ^ 1]) + kept[1:])[at % 3]
            client.set(key, forged, keepttl=True)


def _after(pause_s: float, then: Callable[[], object]) -> None:
    threading.Event().wait(pause_s)
    then()
