"""
The workers that a campaign harms, the uploads that it sends them meanwhile, and the readers that see what comes of it.

What is done to them is in ``worker_faults.py`` and ``server_faults.py``; what came of it is judged in ``ledger.py``.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from typing import Literal, Self

from confluent_kafka import KafkaException
from kafka.errors import KafkaError

from tests.platform_side import Event, Published, inline, small_jpeg, upload_event
from tests.servers import eventually
from tests.soak.append_times import appended_at, commits_of, committed_early, stamp_by_the_broker
from tests.soak.ledger import compare
from tests.soak.tally import Tally
from tests.soak.watching import PATIENCE_S, PatientCluster, ToldWatch
from tests.worker_rig import Instruments, WorkerProcess, WorkerRig
from worker.errors import EXIT_CRASHED

Delivery = Literal["at_least_once", "exactly_once"]

PARTITIONS = 4
KEYS = 40
PICTURES = 150
"""Fewer than uploads, so that some are recalled from the cache, some join a twin, and some are encoded."""

DAMAGED_EVERY = 17
UNREADABLE_EVERY = 23
SESSION_S = 6
"""As tests/worker_rig.py sets it: without a heartbeat for so long a worker is expelled."""

LOOK_S = 5.0


class Fleet:
    """
    Workers of one group, by name, with their uploads and readers; all ends with the context.

    A worker that was killed or stopped is started again under its name, and so is one that ended by itself with 4,
    which counts as a crash. What ``tally`` counts holds for the whole life of the fleet.
    """

    def __init__(
        self, servers: tuple[str, str], instruments: Instruments, folder: Path, *, delivery: Delivery, group: str = ""
    ) -> None:
        self.delivery = delivery
        self.published: list[Published] = []
        self.workers: dict[str, WorkerProcess] = {}
        self.crashes = 0
        self._crashed: list[str] = []
        self.rig = WorkerRig(*servers, instruments, folder).configure(
            f"kafka.delivery={delivery}",
            "kafka.transaction_timeout_s=5",
            "redis.connect_timeout_s=1",
            "redis.timeout_s=0.5",
            "redis.breaker_open_s=1",
            # Or the process would remember every picture, and Redis would hardly be asked.
            "flow.recent_embeddings=16",
        )
        if group:
            self.rig.configure(f"kafka.group_id={group}")
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.rig)
            self.rig.create_topics(PARTITIONS)
            topics, servers, group = (
                self.rig.settings.kafka.topics,
                self.rig.bootstrap_servers,
                self.rig.settings.kafka.group_id,
            )
            stamp_by_the_broker(servers, (topics.verdicts, topics.dead_letters))
            # Two of them: who watches the commits must not wait for whoever asks something else.
            self.cluster = stack.enter_context(closing(PatientCluster(servers, group)))
            watching = stack.enter_context(closing(PatientCluster(servers, group)))
            attempts = self.rig.reader()
            self.reader = attempts
            if self.delivery == "exactly_once":
                self.reader = self.rig.reader(isolation_level="read_committed")
            self._watch = ToldWatch(watching, attempts, topics.verdicts, topics.dead_letters)
            stack.enter_context(self._watch)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, *names: str) -> None:
        """
        Workers of these names have begun to load.
        """
        for name in names:
            self.workers[name] = self.rig.start(name)

    def until_consuming(self) -> None:
        """
        Every worker has loaded and has its share.
        """
        for worker in self.workers.values():
            worker.until_started()
        shares = [PARTITIONS // len(self.workers)] * len(self.workers)
        assert eventually(lambda: self.cluster.shares() == shares, deadline_s=PATIENCE_S), self.rig.text()

    def send(self, count: int) -> Sequence[Published]:
        """
        So many further uploads are in the topic.
        """
        first = len(self.published)
        sent = self.rig.publish([an_upload(number) for number in range(first, first + count)])
        self.published += sent
        return sent

    def until_some(self, sent: Sequence[Published], share: float) -> None:
        """
        Such a share of them has an outcome, committed or not.
        """
        wanted = {one.position for one in sent}
        enough = max(1, round(share * len(wanted)))
        assert self.reader.until(
            lambda: len({one.answers for one in self.reader.outcomes[-4 * len(wanted) :]} & wanted) >= enough,
            PATIENCE_S,
        ), self.rig.text()

    def until_answered(self, sent: Sequence[Published]) -> bool:
        """
        Whether all of them have an outcome in time; whether what is missing is lost, the tally says at the end.

        Whoever crashed meanwhile is started again.
        """
        give_up_s = time.monotonic() + PATIENCE_S
        while not (answered := self.reader.until_answered(sent, LOOK_S)) and time.monotonic() < give_up_s:
            self._revive()
        self._revive()
        return answered

    def until_settled(self) -> None:
        """
        Everything that was sent is committed, and every worker has its share: whoever was to crash, has.
        """

        def settled() -> bool:
            self._revive()
            return not self._uncommitted()

        assert eventually(settled, deadline_s=PATIENCE_S), self.rig.text()
        self.until_consuming()
        self._revive()

    def _revive(self) -> None:
        """
        A worker that ended by itself with 4 is started again, as its supervisor would do.
        """
        for name, worker in list(self.workers.items()):
            if worker.process.poll() == EXIT_CRASHED:
                self.note_crash(name, worker)
                self.start(name)

    def note_crash(self, name: str, worker: WorkerProcess) -> None:
        """
        Count a worker that ended by itself with 4; whether it may have, its round says.
        """
        self.crashes += 1
        self._crashed.append(f"{name} ended by itself with {EXIT_CRASHED}: {worker.text(1)[:300]}")

    def crashed_lately(self) -> Sequence[str]:
        """
        Who crashed since this was last asked, and its last words.
        """
        crashed, self._crashed = self._crashed, []
        return crashed

    def stop(self) -> Sequence[str]:
        """
        Every worker is told to stop and has; what was wrong with how it did.
        """
        wrong = []
        for name, worker in self.workers.items():
            try:
                code = worker.stop()
            except AssertionError as fault:
                worker.close()
                wrong.append(f"{name} did not stop when it was told to: {str(fault).splitlines()[0]}")
            else:
                self.crashes += code == EXIT_CRASHED
                wrong += [f"{name} left with {code} when it was told to stop: {worker.text(1)[:300]}"] if code else []
        return wrong

    def _uncommitted(self) -> int:
        return _behind(self.cluster.ends(self.rig.settings.kafka.topics.uploads), self.cluster.committed())

    def tally(self, campaign: str, *, faults: int, rounds: int, took_s: float) -> Tally:
        """
        Every input against every outcome, and every commit against both; asked when the workers are gone.
        """
        wrong = [*self._unread(), *self._watch.ended()]
        early = [*self._watch.passed, *self._early_by_the_log(wrong)]
        found = compare(self.published, list(self.reader.outcomes))
        if self.delivery == "exactly_once" and found.duplicates:
            wrong.append(f"a read_committed reader saw {found.duplicates} outcomes again")
        return Tally(
            campaign,
            faults=faults,
            rounds=rounds,
            sent=len(self.published),
            terminal=found.terminal,
            lost=len(found.lost),
            early=len(early),
            duplicates=found.duplicates,
            crashes=self.crashes,
            took_s=round(took_s, 1),
            wrong=(*wrong, *found.wrong, *early[:3]),
        )

    def _early_by_the_log(self, wrong: list[str]) -> Sequence[str]:
        """
        What the watch may have missed; adds to ``wrong`` what keeps this from being known.

        Known hole: in transactions it is not asked (``append_times.py`` says why), and early commits are sampled only.
        """
        if self.delivery == "exactly_once":
            return []
        kafka, servers = self.rig.settings.kafka, self.rig.bootstrap_servers
        try:
            commits = commits_of(servers, kafka.group_id, kafka.topics.uploads)
            appended = appended_at(servers, (kafka.topics.verdicts, kafka.topics.dead_letters))
        except (AssertionError, KafkaException) as fault:
            wrong.append(f"the times of commits and outcomes could not be read: {fault}")
            return []
        if not commits:
            wrong.append("no commit was found in the topic of the groups")
        return committed_early(appended, commits)

    def _unread(self) -> list[str]:
        """
        What keeps the reader from having seen all, or the group from having committed all; in words.
        """
        topics = self.rig.settings.kafka.topics
        try:
            wrong = [
                f"{topic} was not read to its end in {PATIENCE_S:g} s"
                for topic in (topics.verdicts, topics.dead_letters)
                if not self.reader.until_read(topic, self.cluster.ends(topic), PATIENCE_S)
            ]
            if uncommitted := self._uncommitted():
                wrong.append(f"{uncommitted} uploads are not committed when all is over")
        except KafkaError as fault:
            return [f"the brokers did not say how much there is to read: {type(fault).__name__}"]
        return wrong


def an_upload(number: int) -> Event:
    """
    Mostly pictures that others share; now and then a file that is no image, or a record that is no event.
    """
    key = f"user-{number % KEYS}"
    if number % UNREADABLE_EVERY == UNREADABLE_EVERY - 1:
        return Event(key.encode(), b"this is no event %d" % number, (("content-type", b"text/plain"),))
    damaged = number % DAMAGED_EVERY == DAMAGED_EVERY - 1
    data = b"no image, number %d" % number if damaged else picture(number * 7 % PICTURES)
    return upload_event(f"soak/{number}", inline(data), key=key)


@cache
def picture(number: int) -> bytes:
    """
    One of the pictures that the uploads share.
    """
    return small_jpeg(number)


def _behind(ends: dict[int, int], committed: dict[int, int]) -> int:
    return sum(max(0, end - committed.get(number, 0)) for number, end in ends.items())
