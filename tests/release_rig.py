"""
Real workers that follow a place of releases, a steady load of uploads for them, and the memory that they hold.

The watch alone, with the fake encoder, is in ``release_worlds.py``; workers in general are in ``worker_rig.py``.
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from kafka import KafkaProducer

from tests.bank_builders import unit_rows
from tests.outcome_reader import Outcome, OutcomeReader
from tests.platform_side import DEADLINE_S, Event, Published, inline, small_jpeg, upload_event
from tests.worker_rig import Instruments, LogLine, WorkerProcess, WorkerRig
from worker.adapters.kafka_topics import topics_of
from worker.adapters.topic_plan import TopicsFile, plan_topics, wanted_topics
from worker.bank.files import counts_of, load_bank, read_manifest, write_contents, write_manifest
from worker.bank.release_place import DirectoryPlace
from worker.bank.releases import Releases
from worker.bank.vectors import StoredVectors
from worker.dev.servers import KafkaAt, RedisAt

ActivatedBy = Literal["pointer", "topic"]

FIRST_PICTURE = 100_000
"""Of a steady load: no other test's pictures."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class FromReleases(Instruments):
    """
    The encoder, and a place of releases instead of a bank.
    """

    place: Path
    activated_by: ActivatedBy = "topic"

    @classmethod
    def of(cls, instruments: Instruments, releases: Releases, activated_by: ActivatedBy = "topic") -> Self:
        """
        These instruments, their bank from that place.
        """
        place = Path(releases.place.name)
        return cls(instruments.model, instruments.checkpoint_sha256, instruments.bank, place, activated_by)

    def sets(self) -> list[str]:
        """
        The settings that name them.
        """
        others = [one for one in super(FromReleases, self).sets() if not one.startswith("bank.path=")]
        return [
            *others,
            f"bank.releases={json.dumps(str(self.place))}",
            f"bank.activated_by={self.activated_by}",
            "bank.look_every_s=0.2",
        ]


@contextmanager
def following_rig(
    servers: tuple[KafkaAt, RedisAt], followed: FromReleases, folder: Path, *, partitions: int
) -> Iterator[WorkerRig]:
    """
    A rig whose workers follow the releases; the control topic is there, whether it is used or not.
    """
    kafka, redis = servers
    with WorkerRig(kafka.bootstrap_servers, redis.url, followed, folder) as made:
        settings = made.configure(f"kafka.topics.bank_control={made.name}-control").create_topics(partitions).settings
        with topics_of(settings.kafka) as topics:
            wanted = wanted_topics(settings.kafka, TopicsFile(), brokers=topics.brokers(), roles=("bank_control",))
            topics.apply(plan_topics(wanted, {}))
        yield made
        with topics_of(settings.kafka) as topics:
            topics.delete([settings.kafka.topics.bank_control])


def publish_versions(bank: Path, folder: Path, count: int) -> Releases:
    """
    Releases 1, 2, ... of one bank, in a place below ``folder``; they differ in their version only.
    """
    found = Releases(DirectoryPlace(folder / "place"))
    for number in range(1, count + 1):
        fresh = folder / f"bank-{number}"
        shutil.copytree(bank, fresh)
        write_manifest(fresh, read_manifest(fresh).model_copy(update={"version": str(number)}))
        found.publish(fresh)
    return found


def enlarged(bank: Path, out: Path, *, more: int) -> Path:
    """
    A bank of so many references, each near one that the given bank has.
    """
    small = load_bank(bank)
    rows = np.arange(more, dtype=np.int64) % len(small.entries)
    near = unit_rows(small.vectors[rows] + 0.05 * np.random.default_rng(1).normal(size=(more, small.vectors.shape[1])))
    stored = StoredVectors(
        vectors=near,
        native=small.stored.native[:0],
        native_owner=small.stored.native_owner[:0],
        norms=small.stored.norms[rows],
        realism=small.stored.realism[rows],
        shift=small.stored.shift[rows],
    )
    entries = [replace(small.entries.entry(int(row)), id=f"near-{at}") for at, row in enumerate(rows)]
    out.mkdir()
    checksums = write_contents(out, entries, stored=stored, probe=small.probe, probe_png=small.probe_png)
    write_manifest(out, small.manifest.model_copy(update={"counts": counts_of(entries), "checksums": checksums}))
    return out


def resident_bytes(process: int | Literal["self"] = "self") -> int:
    """
    The memory of a process that is in use.
    """
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE_BYTES


def told(worker: WorkerProcess, event: str) -> list[LogLine]:
    """
    The lines of this event so far; of a long log no other line is read.
    """
    return [json.loads(line) for line in worker.lines() if f'"{event}"' in line]


class SteadyLoad:
    """
    A thread that publishes so many uploads a second, each of another picture and of few keys, until it is closed.
    """

    def __init__(self, rig: WorkerRig, *, per_s: float, keys: int = 16) -> None:
        self._topic = rig.settings.kafka.topics.uploads
        self._servers = rig.bootstrap_servers
        self._per_s = per_s
        self._keys = keys
        self._sent: list[tuple[Event, Any]] = []
        self._fault: BaseException | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(DEADLINE_S)

    def __len__(self) -> int:
        """
        How many were sent so far.
        """
        return len(self._sent)

    def ended(self) -> list[Published]:
        """
        All that was published, once no more is; raises what ended it before its time.
        """
        self.__exit__()
        if self._fault is not None:
            raise self._fault
        stored = [(event, future.get(DEADLINE_S)) for event, future in self._sent]
        return [Published(event, (record.partition, record.offset)) for event, record in stored]

    def _run(self) -> None:
        try:
            with closing(KafkaProducer(bootstrap_servers=self._servers, acks="all", linger_ms=0)) as producer:
                began_s = time.monotonic()
                # By the schedule, not by pauses: who was late catches up, and the rate holds on a busy machine.
                while not self._stopped.wait(max(0.0, began_s + len(self._sent) / self._per_s - time.monotonic())):
                    number = len(self._sent)
                    picture = inline(small_jpeg(FIRST_PICTURE + number))
                    event = upload_event(f"steady/{number}", picture, key=f"user-{number % self._keys}")
                    sent = producer.send(self._topic, value=event.value, key=event.key, headers=list(event.headers))
                    self._sent.append((event, sent))
        except BaseException as fault:  # noqa: BLE001 - it is raised again, on the thread that ends the load
            self._fault = fault


def bank_of(outcome: Outcome) -> str:
    """
    The version of the bank that a verdict was given by.
    """
    version: str = outcome.data["versions"]["bank"]["version"]
    return version


def until_judged_by(reader: OutcomeReader, version: str, *, partitions: int) -> bool:
    """
    Whether the newest verdict in every partition is of this bank, before the deadline.

    To be asked for each bank in turn, while uploads flow: of what came earlier the last 200 verdicts are looked at.
    """

    def everywhere() -> bool:
        newest = {one.answers[0]: bank_of(one) for one in reader.outcomes[-200:]}
        return list(newest.values()) == [version] * partitions

    return reader.until(everywhere)


def banks_by_partition(outcomes: Sequence[Outcome]) -> dict[int, list[str]]:
    """
    Per partition of the upload topic the banks as they follow each other, in the order of the uploads.
    """
    in_order = sorted(outcomes, key=lambda one: one.answers)
    return {
        number: [version for version, _ in groupby(of_one, key=bank_of)]
        for number, of_one in groupby(in_order, key=lambda one: one.answers[0])
    }


def require_each_once_in_order(published: Sequence[Published], outcomes: Sequence[Outcome]) -> None:
    """
    Every upload has one verdict, which is no failure; the verdicts of a key lie in the order of its uploads.
    """
    of_key: dict[bytes | None, list[tuple[int, int]]] = {}
    for one in sorted(outcomes, key=lambda one: one.place):
        of_key.setdefault(one.key, []).append(one.answers)

    assert sorted(one.position for one in published) == sorted(one.answers for one in outcomes)
    assert {one.data["outcome"]["status"] for one in outcomes} <= {"decided", "abstained"}
    assert all(answers == sorted(answers) for answers in of_key.values())
