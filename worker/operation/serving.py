"""
What a live worker tells those who watch it: metrics, health and versions, over HTTP where the settings ask for it.

It is there before the model is loaded, and tells of the worker's parts as they come. Nothing here changes anything, and
no answer waits for the worker.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from http import HTTPStatus
from typing import Final

import structlog

from schemas import SCHEMA_VERSION
from schemas.verdict import ImageVerdictV1
from worker import __version__
from worker.adapters.system_clock import SystemClock
from worker.flow.bank_judge import BankJudge
from worker.operation.bank_in_use import BankInUse
from worker.operation.bank_status import BankStatus
from worker.operation.gauges import Watched, bank_readings, build_readings, release_readings, worker_readings
from worker.operation.health import Health, alive, ready, started
from worker.ports import Clock, Recorder
from worker.settings.show import redacted_tree
from worker.settings.tree import Settings
from worker.telemetry.drift import DriftWatch
from worker.telemetry.http_endpoints import Answer, HttpEndpoints, Route
from worker.telemetry.metrics import EveryRecorder, InMemoryRecorder
from worker.telemetry.prometheus import PrometheusRecorder, Reading

log = structlog.get_logger(__name__)

UNACKNOWLEDGED_S: Final = 10.0
"""An outcome that waits longer than this for the broker makes the worker unready; well within its time to fail."""


class Serving:
    """
    What is told of a worker, and the recorder that all its parts count with. Any thread may call any method.

    ``port`` is the one that the endpoints listen on, None while they do not.

    Without ``http`` nothing is told, and the recorder keeps its counts for the last line of the log.
    """

    def __init__(self, settings: Settings, *, clock: Clock, drift: DriftWatch | None = None) -> None:
        self._http = settings.http
        self._group = settings.kafka.group_id
        self._clock = clock
        self._config_sha256 = config_sha256(settings)
        self._memory = InMemoryRecorder()
        self._drift = drift or DriftWatch()
        self._watched: Watched | None = None
        self._bank: BankInUse | None = None
        self._releases: Callable[[], BankStatus] | None = None
        self._prometheus: PrometheusRecorder | None = None
        self.port: int | None = None
        self.recorder: Recorder = self._memory
        if settings.http.enabled:
            self._prometheus = PrometheusRecorder()
            self._prometheus.read_gauges(self._readings)
            self.recorder = EveryRecorder(self._memory, self._prometheus)

    def judging_by(self, judge: BankJudge) -> None:
        """
        Tell of this judge's bank from now on, without holding on to it; at the start, and after each swap.
        """
        if self._prometheus is None:
            return
        bank = BankInUse.of(judge)
        self._drift.hold_against(bank.calibrated)
        self._bank = bank

    def running(self, watched: Watched, releases: Callable[[], BankStatus] | None = None) -> None:
        """
        The worker's parts run, and its loop begins; ``releases`` tells how the releases stand that it follows.
        """
        self._releases = releases
        self._watched = watched

    @property
    def on_verdict(self) -> Callable[[ImageVerdictV1], None] | None:
        """
        What is to be told each released verdict; None where nobody would ask.
        """
        return None if self._prometheus is None else self._drift.saw

    def snapshot(self) -> Mapping[str, float]:
        """
        All counts and measurements so far.
        """
        return self._memory.snapshot()

    def routes(self) -> Mapping[str, Route]:
        """
        What each path answers.
        """
        return {
            "/livez": lambda _accept: _told(self._alive()),
            "/startupz": lambda _accept: _told(started(running=self._watched is not None)),
            "/readyz": lambda _accept: _told(self._ready()),
            "/info": lambda _accept: _json(HTTPStatus.OK, self._info()),
            "/metrics": self._metrics,
        }

    def _alive(self) -> Health:
        progress = None if self._watched is None else self._watched.loop.progress()
        return alive(progress, now_s=self._clock.monotonic_s(), stalled_after_s=self._http.stalled_after_s)

    def _ready(self) -> Health:
        watched = self._watched
        if watched is None:
            return ready(None, None, self._alive(), producer=True)
        producer = watched.unacknowledged_s() <= UNACKNOWLEDGED_S
        return ready(watched.loop.progress(), watched.standing(), self._alive(), producer=producer)

    def _metrics(self, accept: str | None) -> Answer:
        if self._prometheus is None:
            return Answer(HTTPStatus.NOT_FOUND, b"no metrics without http.enabled\n")
        body, content_type = self._prometheus.exposition(accept)
        return Answer(HTTPStatus.OK, body, content_type)

    def _readings(self) -> Iterator[Reading]:
        yield from build_readings(group=self._group)
        yield Reading("ready", float(self._ready().ok))
        now_s = self._clock.wall_s()
        if self._watched is not None:
            yield from worker_readings(self._watched, now_s=now_s)
        if self._bank is not None:
            yield from bank_readings(self._bank, self._drift.drift(), group=self._group, now_s=now_s)
        yield from release_readings(None if self._releases is None else self._releases(), group=self._group)

    def _info(self) -> Mapping[str, object]:
        bank, watched = self._bank, self._watched
        assigned = [] if watched is None else sorted(watched.standing().lag)
        return {
            "version": __version__,
            "schema": SCHEMA_VERSION,
            "config_sha256": self._config_sha256,
            "partitions": [f"{partition.topic}-{partition.number}" for partition in assigned],
            "bank": None
            if bank is None
            else {
                "id": bank.identity.id,
                "version": bank.identity.version,
                "manifest_sha256": bank.identity.manifest_sha256,
                "entries": bank.identity.entries,
                "index": bank.identity.index,
                "judgement": None if bank.calibrated is None else bank.calibrated.id,
            },
            "policy": None if bank is None else bank.policy,
            "releases": None if self._releases is None else asdict(self._releases()),
        }


@contextmanager
def serving(settings: Settings, *, instance_id: str, drift: DriftWatch | None = None) -> Iterator[Serving]:
    """
    What is told of a worker, its endpoints open inside where they are enabled. Raises ``CannotStart``.
    """
    told = Serving(settings, clock=SystemClock(), drift=drift)
    if not settings.http.enabled:
        yield told
        return
    endpoints = HttpEndpoints(settings.http.host, settings.http.port, told.routes())
    told.port = endpoints.port
    log.info("http.listening", instance=instance_id, host=settings.http.host, port=told.port)
    try:
        yield told
    finally:
        told.port = None
        endpoints.close()


def config_sha256(settings: Settings) -> str:
    """
    Which configuration this is: over the effective settings, secrets masked, so two that differ in these are alike.
    """
    return hashlib.sha256(json.dumps(redacted_tree(settings), sort_keys=True).encode()).hexdigest()


def _told(health: Health) -> Answer:
    status = HTTPStatus.OK if health.ok else HTTPStatus.SERVICE_UNAVAILABLE
    return _json(status, {"ok": health.ok, "checks": health.checks})


def _json(status: HTTPStatus, value: object) -> Answer:
    return Answer(status, json.dumps(value).encode() + b"\n", "application/json")
