"""
Real servers and real processes for benchmarks: a Kafka, a Redis, and lanes, each with topics and a process of its own.

A lane's process stays up over all rounds, so that neither imports nor warm-up are in any rate. What is published for a
round is published while the process is held still: producing is the platform's work, on machines of the platform.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.adapters.kafka_arrivals import Arrivals, Arrived
from worker.adapters.kafka_platform import PublishedEvent, publish_uploads
from worker.adapters.kafka_topics import create_for_a_while
from worker.bench.measurement import Reading, Took
from worker.bench.uploads import Answers, answers_of, rate_of, steady_rate_of
from worker.dev.kafka_server import EmbeddedKafka
from worker.dev.redis_server import EmbeddedRedis
from worker.dev.servers import KAFKA_VARIABLE, REDIS_VARIABLE, kafka_for, redis_for
from worker.errors import WorkerCrashed
from worker.settings.load import load_settings
from worker.settings.tree import Settings

PARTITIONS: Final = 4
START_PATIENCE_S: Final = 180.0
"""For a process to import, load and answer its first uploads."""

PATIENCE_S: Final = 60.0
LOOK_EVERY_S: Final = 0.1
_LOG_LINES: Final = 15


@dataclass(frozen=True, slots=True)
class Servers:
    """
    Where Kafka and Redis are; their processes are known only where they are our own.
    """

    bootstrap_servers: str
    redis_url: str
    kafka_pids: tuple[int, ...] = ()
    redis_pids: tuple[int, ...] = ()

    def sets(self) -> list[str]:
        """
        The settings that name them.
        """
        return [
            f"kafka.bootstrap_servers={json.dumps(self.bootstrap_servers)}",
            f"redis.url={json.dumps(self.redis_url)}",
        ]


@contextmanager
def bench_servers(environ: Mapping[str, str]) -> Iterator[Servers]:
    """
    The Kafka and the Redis that the environment names, else real ones of our own. Raises ``CannotStart``.
    """
    with ExitStack() as stack:
        kafka_pids: tuple[int, ...] = ()
        redis_pids: tuple[int, ...] = ()
        if environ.get(KAFKA_VARIABLE, "").strip():
            bootstrap = stack.enter_context(kafka_for(environ)).bootstrap_servers
        else:
            kafka = stack.enter_context(EmbeddedKafka())
            bootstrap, kafka_pids = kafka.bootstrap_servers, (kafka.pid,)
        if environ.get(REDIS_VARIABLE, "").strip():
            url = stack.enter_context(redis_for(environ)).url
        else:
            redis = stack.enter_context(EmbeddedRedis())
            url, redis_pids = redis.url, (redis.pid,)
        yield Servers(bootstrap, url, kafka_pids, redis_pids)


@dataclass(frozen=True, slots=True)
class Round:
    """
    One round of one lane: its answers, what its process took, and the CPU seconds of the two servers meanwhile.
    """

    answers: Answers
    took: Took
    kafka_cpu_s: float
    redis_cpu_s: float

    @property
    def per_s(self) -> float:
        """
        Uploads answered per second.
        """
        return rate_of(self.answers.made_s, began_s=self.answers.began_s)

    @property
    def cpu_s(self) -> float:
        """
        CPU seconds of the lane's processes per upload.
        """
        return self.took.cpu_s / len(self.answers.made_s)

    @property
    def first_s(self) -> float:
        """
        Seconds until the first outcomes were made.
        """
        return self.answers.made_s[0] - self.answers.began_s

    def idle(self, cores: int) -> float:
        """
        The share of the cores that neither the lane nor our servers nor anybody else used; this process counts to it.
        """
        used_s = self.took.cpu_s + self.kafka_cpu_s + self.redis_cpu_s
        return max(0.0, 1.0 - self.took.others - used_s / (self.took.wall_s * cores))

    def steady_per_s(self, window: int) -> float | None:
        """
        Uploads answered per second while a worker that takes ``window`` at once was full; None in a shorter round.
        """
        return steady_rate_of(self.answers.made_s, window=window)


def lane_sets(run: str, lane: str, servers: Servers, more: Sequence[str] = ()) -> list[str]:
    """
    The settings that give a lane topics, a group and a Redis namespace of its own; ``more`` wins over them.
    """
    name = f"bench-{run}-{lane}"
    return [
        f"service.name={name}",
        f"kafka.group_id={name}",
        f"kafka.topics.uploads={name}-uploads",
        f"kafka.topics.verdicts={name}-verdicts",
        f"kafka.topics.dead_letters={name}-letters",
        f"kafka.topics.retry={name}-retry",
        # A machine that is kept busy is no slow Redis, and what cannot be fetched here ends the run.
        "redis.timeout_s=2",
        "retry.delays_s=[]",
        f"redis.namespace={name}",
        "redis.ttl_s=3600",
        "log.format=json",
        "log.level=warning",
        *servers.sets(),
        *more,
    ]


def settings_of(sets: Sequence[str], config: Path | None = None) -> Settings:
    """
    The settings that a process is started with, as this one reads them.
    """
    return load_settings(config=config, overlay=None, environ={}, sets=sets).settings


class Lane:
    """
    The topics of one contender and the process that answers in them.
    """

    def __init__(self, name: str, settings: Settings, servers: Servers, *, log_file: Path) -> None:
        self.name = name
        self.settings = settings
        self._servers = servers
        self._log_file = log_file
        self._processes: list[subprocess.Popen[bytes]] = []
        self._arrivals: Arrivals | None = None

    @contextmanager
    def running(
        self, command: Sequence[str], *, partitions: int = PARTITIONS, copies: int = 1, pinned: bool = False
    ) -> Iterator["Lane"]:
        """
        The topics exist and ``command`` runs inside, begun but not yet waited for; both are gone afterwards.

        ``copies`` processes share the topics and the group; where they are ``pinned`` each is held to one core, the
        next one to the next core.
        """
        kafka = self.settings.kafka
        with ExitStack() as stack:
            stack.enter_context(create_for_a_while(kafka, partitions=partitions))
            topics = (kafka.topics.verdicts, kafka.topics.dead_letters)
            self._arrivals = Arrivals(kafka, topics, client_id=f"bench-{self.name}")
            stack.callback(self._arrivals.close)
            log = stack.enter_context(self._log_file.open("wb"))
            for number in range(copies):
                process = stack.enter_context(
                    subprocess.Popen(command, stdout=log, stderr=log, env=lane_environ(os.environ))  # noqa: S603 - our own commands
                )
                stack.callback(_end, process)
                self._processes.append(process)
                if pinned:
                    cores = sorted(os.sched_getaffinity(0))
                    os.sched_setaffinity(process.pid, {cores[number % len(cores)]})
            stack.callback(self._processes.clear)
            yield self

    @property
    def pid(self) -> int:
        """
        The process of the lane, the first one where there are several.
        """
        return self.pids[0]

    @property
    def pids(self) -> list[int]:
        """
        The processes of the lane.
        """
        return [process.pid for process in self._running()]

    def check(self) -> None:
        """
        Raise ``WorkerCrashed`` if a process has ended.
        """
        for process in self._running():
            if process.poll() is not None:
                raise WorkerCrashed(f"{self.name} ended with {process.returncode}. The end of its log:\n{self._tail()}")

    def answered(self, events: Sequence[PublishedEvent], *, patience_s: float = PATIENCE_S) -> Round:
        """
        Publish these while the process is held still, let it go, and wait for its answers to all of them.

        Raises ``ValueError`` without any, and ``WorkerCrashed`` when it ends, when nothing arrives for ``patience_s``,
        and where an upload is not answered exactly once by a verdict that is none of a failure.
        """
        if not events:
            raise ValueError(f"{self.name}: no upload was given, expected at least one")
        servers = (*self._servers.kafka_pids, *self._servers.redis_pids)
        with _held_still(self._running()):
            publish_uploads(self.settings.kafka, events)
            kafka, redis = Reading.now(self._servers.kafka_pids), Reading.now(self._servers.redis_pids)
            before = Reading.now(self.pids, beside=servers)
            began_s = time.time()
        arrived: list[Arrived] = []
        while len(arrived) < len(events):
            # Once, but for exactly-once delivery: what waits there are markers of transactions as well.
            self._until_waiting(len(events) - len(arrived), patience_s, of=len(events))
            # Before they are read: reading is no part of the round.
            took = before.until(Reading.now(self.pids, beside=servers))
            kafka_s = kafka.until(Reading.now(self._servers.kafka_pids)).cpu_s
            redis_s = redis.until(Reading.now(self._servers.redis_pids)).cpu_s
            arrived += self._watch().take()
        answers = answers_of(events, arrived, began_s=began_s, by=self.name)
        return Round(answers, took, kafka_s, redis_s)

    def _until_waiting(self, expected: int, patience_s: float, *, of: int) -> None:
        watch = self._watch()
        waiting, since_s = 0, time.monotonic()
        while waiting < expected:
            time.sleep(LOOK_EVERY_S)
            now = watch.waiting()
            if now > waiting:
                waiting, since_s = now, time.monotonic()
            self.check()
            if time.monotonic() - since_s > patience_s:
                raise WorkerCrashed(
                    f"{self.name}: {of - expected + waiting} of {of} outcomes arrived, and none for {patience_s:.0f} "
                    f"s. The end of its log:\n{self._tail()}"
                )

    def _tail(self) -> str:
        return "\n".join(self._log_file.read_text(errors="replace").splitlines()[-_LOG_LINES:])

    def _running(self) -> "Sequence[subprocess.Popen[bytes]]":
        if not self._processes:
            raise WorkerCrashed(f"{self.name} was not started; enter ``running`` first")
        return self._processes

    def _watch(self) -> Arrivals:
        if self._arrivals is None:
            raise WorkerCrashed(f"{self.name} was not started; enter ``running`` first")
        return self._arrivals


def worker_command(sets: Sequence[str], config: Path | None = None) -> list[str]:
    """
    The command line of a worker with these settings.
    """
    command = [sys.executable, "-m", "worker", "run"]
    if config is not None:
        command += ["--config", str(config)]
    for one in sets:
        command += ["--set", one]
    return command


@contextmanager
def _held_still(processes: "Sequence[subprocess.Popen[bytes]]") -> Iterator[None]:
    # Children that decode have nothing to do meanwhile. A session outlasts this by far.
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGCONT)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    process.kill()


def lane_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """
    The environment of a contender: of this one, nothing that is the caller's own configuration.

    Nor how many threads libraries may have: with one instance for each core the worker sets that for itself, and
    OMP_NUM_THREADS=1 would hold back the loops beside it alone.
    """
    mine = {KAFKA_VARIABLE, REDIS_VARIABLE}
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith("TOUCHSTONE__") and not name.endswith("_NUM_THREADS") and name not in mine
    }
