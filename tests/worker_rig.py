"""
Workers as an operator runs them: real processes, ``python -m worker run``, on a real Kafka and a real Redis.

Each rig has topics, a group and a Redis namespace of its own. What workers publish is read in ``outcome_reader.py``.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from tests.bank_builders import a_source
from tests.outcome_reader import OutcomeReader
from tests.platform_side import DEADLINE_S, Cluster, Event, Published, publish
from tests.small_encoder import loaded
from worker.adapters.kafka_topics import create_for_a_while
from worker.bank.build import BuildPlan, build_bank
from worker.bank.embedding import ReferenceEmbedder
from worker.bank.manifest import GENERATED
from worker.bank.sources import list_source
from worker.dev.small_encoder import write_small_encoder
from worker.settings.load import load_settings
from worker.settings.tree import Settings
from worker.stages.decode import DecodeLimits, PillowDecoder

POLICY = Path(__file__).parents[1] / "config" / "policy.toml"
START_DEADLINE_S = 180.0
"""For a worker to load: ten seconds of one core, of which several workers and tests may want a part."""

LogLine = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Instruments:
    """
    An encoder and a bank that was made with it, to be configured.
    """

    model: str
    checkpoint_sha256: str
    bank: Path

    def sets(self) -> list[str]:
        """
        The settings that name them.
        """
        return [
            f"encoder.model={json.dumps(self.model)}",
            f"encoder.checkpoint_sha256={self.checkpoint_sha256}",
            "encoder.device=cpu",
            f"bank.path={json.dumps(str(self.bank))}",
            f"policy.path={json.dumps(str(POLICY))}",
        ]


def small_instruments(folder: Path) -> Instruments:
    """
    The small untrained encoder, and with it a bank of 24 pictures.
    """
    small = write_small_encoder(folder / "encoder")
    encoder = loaded(small)
    embedder = ReferenceEmbedder(
        encoder, PillowDecoder(encoder.fingerprint.preprocess, DecodeLimits(), perceptual_hash=None)
    )
    listing = list_source(a_source(folder / "references", reals=12, fakes=12), GENERATED)
    build_bank(listing, folder / "bank", embedder=embedder, plan=BuildPlan(id="small"))
    return Instruments(small.model, small.checkpoint_sha256, folder / "bank")


class WorkerProcess:
    """
    One worker, and all that it has logged. Whatever waits here fails with the end of the log when time is up.
    """

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        # Of the environment nothing that is the caller's own configuration; no config/worker.toml in the folder.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TOUCHSTONE__")}
        for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"):
            environ.pop(name, None)
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._ended = False
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environ,
            text=True,
            errors="replace",
        )
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def logged(self, event: str) -> list[LogLine]:
        """
        The lines of this event so far.
        """
        with self._changed:
            parsed = [json.loads(line) for line in self._lines if line.startswith("{")]
        return [line for line in parsed if line.get("event") == event]

    def lines(self) -> list[str]:
        """
        All that it has written so far, to either stream.
        """
        with self._changed:
            return list(self._lines)

    def until_logged(self, event: str, deadline_s: float = DEADLINE_S) -> LogLine:
        """
        The first line of this event.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or bool(self.logged(event)), deadline_s)
        lines = self.logged(event)
        assert lines, f"no {event} within {deadline_s:g} s; it logged:\n{self.text()}"
        return lines[0]

    def until_started(self) -> None:
        """
        It has loaded, and begins to consume.
        """
        self.until_logged("worker.started", START_DEADLINE_S)

    def released(self) -> dict[int, tuple[int, int]]:
        """
        First and last offset of every partition of which this worker has released outcomes.
        """
        ranges: dict[int, tuple[int, int]] = {}
        for line in self.logged("batch.released"):
            for name, (first, last) in line["partitions"].items():
                number = int(name.rpartition("-")[2])
                before = ranges.get(number, (first, last))
                ranges[number] = (min(before[0], first), max(before[1], last))
        return ranges

    def text(self, lines: int = 25) -> str:
        """
        The end of the log, long lines cut.
        """
        with self._changed:
            return "\n".join(line[:500] for line in self._lines[-lines:])

    def signal(self, number: signal.Signals) -> None:
        """
        Send a signal.
        """
        self.process.send_signal(number)

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """
        The exit code, negative after a signal; all that it logged has then been collected.
        """
        try:
            code = self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {deadline_s:g} s; it logged:\n{self.text()}") from None
        self._thread.join(DEADLINE_S)
        return code

    def stop(self) -> int:
        """
        The exit code after SIGTERM.
        """
        self.signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        """
        Nothing of it is left.
        """
        self.process.kill()
        self.process.wait()
        self._thread.join(DEADLINE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()


class WorkerRig:
    """
    Topics, a group and a cache namespace that nobody else has, and the workers on them; all ends with the rig.
    """

    def __init__(self, bootstrap_servers: str, redis_url: str, instruments: Instruments, folder: Path) -> None:
        self.name = f"touchstone-test-{uuid4().hex[:12]}"
        self.folder = folder
        self._sets = [
            f"kafka.bootstrap_servers={json.dumps(bootstrap_servers)}",
            f"kafka.group_id={self.name}",
            f"kafka.topics.uploads={self.name}-uploads",
            f"kafka.topics.verdicts={self.name}-verdicts",
            f"kafka.topics.dead_letters={self.name}-letters",
            f"kafka.topics.retry={self.name}-retry",
            # Tests that want them say so; without, a transient failure ends in its verdict at once.
            "retry.delays_s=[]",
            # The least that brokers allow by default.
            "kafka.session_timeout_s=6",
            f"redis.url={json.dumps(redis_url)}",
            f"redis.namespace={self.name}",
            "redis.ttl_s=3600",
            # A busy machine is no slow Redis.
            "redis.timeout_s=2",
            "fetch.threads=2",
            "decode.threads=1",
            "encoder.threads=1",
            "batch.size=16",
            "log.format=json",
            *instruments.sets(),
        ]
        self.bootstrap_servers = bootstrap_servers
        self._stack = ExitStack()
        self._workers: list[WorkerProcess] = []

    def configure(self, *sets: str) -> Self:
        """
        Settings for every worker that is started from now on.
        """
        self._sets += sets
        return self

    @property
    def sets(self) -> tuple[str, ...]:
        """
        The settings, as words of a command line.
        """
        return tuple(self._sets)

    @property
    def settings(self) -> Settings:
        """
        As the workers have them.
        """
        return load_settings(config=None, overlay=None, environ={}, sets=self._sets).settings

    def create_topics(self, partitions: int) -> Self:
        """
        The three topics and the retry topics that are configured, until the rig is closed.
        """
        settings = self.settings
        self._stack.enter_context(
            create_for_a_while(settings.kafka, partitions=partitions, retry_delays_s=settings.retry.delays_s)
        )
        return self

    def start(self, instance_id: str, *sets: str) -> WorkerProcess:
        """
        A worker that has begun to load.
        """
        command = ["run"]
        for one in (*self._sets, f"service.instance_id={instance_id}", *sets):
            command += ["--set", one]
        worker = WorkerProcess(command, self.folder)
        self._stack.callback(worker.close)
        self._workers.append(worker)
        return worker

    def text(self) -> str:
        """
        The end of every worker's log, for the message of a test that fails.
        """
        return "\n\n".join(worker.text() for worker in self._workers)

    def publish(self, events: Iterable[Event]) -> list[Published]:
        """
        The events in the upload topic, in this order per key, acknowledged.
        """
        return publish(self.bootstrap_servers, self.settings.kafka.topics.uploads, events)

    def reader(self, *, isolation_level: str = "read_uncommitted") -> OutcomeReader:
        """
        A reader of verdicts and dead letters.
        """
        topics = self.settings.kafka.topics
        reader = OutcomeReader(
            self.bootstrap_servers, [topics.verdicts, topics.dead_letters], isolation_level=isolation_level
        )
        return self._stack.enter_context(reader)

    @cached_property
    def cluster(self) -> Cluster:
        """
        What the broker says of the rig's topics and group.
        """
        return self._stack.enter_context(closing(Cluster(self.bootstrap_servers, self.settings.kafka.group_id)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
