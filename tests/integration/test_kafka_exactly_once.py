"""
Source and outbox together on a real broker: each upload is answered once, whoever comes and goes meanwhile.
"""

import random
import threading
from collections import defaultdict

import pytest

from tests.kafka_reader import DEADLINE_S
from tests.kafka_worlds import PARTITIONS, RealWorld, release
from tests.servers import eventually
from worker.dev.servers import KafkaAt
from worker.domain import Partition, RawEvent

pytestmark = [pytest.mark.servers, pytest.mark.slow]

UPLOADS = 1_500
KEYS = 40


class Copier(threading.Thread):
    """
    A worker that answers each upload with its own value: it handles a poll as ``Polled`` says, in transactions.

    Uploads become ready in an order of their own, so that a transaction holds a part of what is in flight.
    """

    def __init__(self, world: RealWorld, number: int) -> None:
        super().__init__(daemon=True)
        self._world = world
        self._number = number
        self._random = random.Random(number)
        self._ending = threading.Event()
        self._in_flight: list[RawEvent] = []
        self.leaves = True
        self.failure: BaseException | None = None
        self.start()

    def end(self, *, leave: bool) -> None:
        """
        Stop; without leaving the group, as a process that is killed.
        """
        self.leaves = leave
        self._ending.set()
        self.join(DEADLINE_S)

    def run(self) -> None:
        """
        Poll, forget, admit, transact.
        """
        try:
            source, outbox = self._world.source(), self._world.outbox(f"worker-{self._number}")
            while not self._ending.is_set():
                polled = source.poll(room=max(0, 80 - len(self._in_flight)), wait_s=0.005)
                self._in_flight = [event for event in self._in_flight if event.partition not in polled.revoked]
                self._in_flight += polled.events
                ready = self._ready()
                offsets = {event.partition: event.offset + 1 for event in ready}
                releases = [
                    release(self._world.verdicts, event.partition, event.offset, event.value or b"", key=event.key)
                    for event in ready
                ]
                if releases and outbox.transact(releases, offsets, polled.membership):
                    done = {(event.partition, event.offset) for event in ready}
                    self._in_flight = [at for at in self._in_flight if (at.partition, at.offset) not in done]
            if self.leaves:
                source.close()
            else:
                # It falls silent, and the group finds out when its session is over.
                source._consumer._coordinator._close_heartbeat()
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.failure = error

    def _ready(self) -> list[RawEvent]:
        ready: list[RawEvent] = []
        waiting: set[Partition] = set()
        for event in self._in_flight:
            if event.partition in waiting or self._random.random() < 0.1:
                waiting.add(event.partition)
            else:
                ready.append(event)
        return ready


def test_each_upload_is_answered_once(kafka: KafkaAt, topic_name: str) -> None:
    """
    A read_committed reader sees every answer exactly once, and those of one key in the order of their uploads.

    Meanwhile, under load, one worker leaves, one is gone without a word, and others join.
    """
    with RealWorld(kafka.bootstrap_servers, topic_name) as world:
        pace = threading.Event()
        workers = [Copier(world, 1), Copier(world, 2)]
        for number in range(UPLOADS):
            world.upload_soon(number % PARTITIONS, b"%d" % number, key=b"key-%d" % (number % KEYS))
            if number % 10 == 0:
                pace.wait(0.03)
            if number == UPLOADS // 4:
                workers.append(Copier(world, 3))
            if number == UPLOADS // 2:
                workers[0].end(leave=True)
            if number == UPLOADS * 3 // 4:
                workers[1].end(leave=False)
                workers.append(Copier(world, 4))
        assert eventually(lambda: len(world.records(world.verdicts)) >= UPLOADS, deadline_s=60.0)
        for worker in workers[2:]:
            worker.end(leave=True)
        answers = world.records(world.verdicts)
        committed = [world.committed(number) for number in range(PARTITIONS)]

    assert [worker.failure for worker in workers] == [None] * 4
    assert sorted(int(answer.value or b"-1") for answer in answers) == list(range(UPLOADS))
    assert committed == [UPLOADS // PARTITIONS] * PARTITIONS
    by_key = defaultdict(list)
    for answer in answers:
        by_key[answer.key].append(int(answer.value or b"-1"))
    assert all(values == sorted(values) for values in by_key.values())
