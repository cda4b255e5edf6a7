"""
Workers whose image store answers as a test wants it, now and later, and what lies in their retry topics.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from schemas.identity import bare_event_id
from tests.platform_side import Event, Published, small_jpeg, upload_event
from tests.scripted_web import Answer, ScriptedWeb, answer, scripted_web
from tests.worker_rig import WorkerRig
from worker.adapters.kafka_collection import collect
from worker.domain import RawEvent

BROKEN = answer(503)


@dataclass
class MendableWeb:
    """
    A web server whose images answer 503 until they are mended; ``asked_s`` tells when each path was asked for.
    """

    web: ScriptedWeb
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _failures: dict[str, int] = field(default_factory=dict)
    asked_s: dict[str, list[float]] = field(default_factory=dict)

    def image(self, number: int, *, failures: int) -> str:
        """
        The address of an image that fails so often before it can be had.
        """
        path = f"/{number}.jpg"
        with self._lock:
            self._failures[path] = failures
            self.asked_s[path] = []
        self.web.routes[path] = Answer(lambda: self._parts(path, small_jpeg(number)))
        return self.web.url(path, host="127.0.0.1")

    def mend(self) -> None:
        """
        From now on every image can be had.
        """
        with self._lock:
            self._failures = dict.fromkeys(self._failures, 0)

    def _parts(self, path: str, body: bytes) -> Iterator[bytes]:
        with self._lock:
            self.asked_s[path].append(time.time())
            broken = self._failures[path] > 0
            self._failures[path] -= broken
        yield from (BROKEN if broken else answer(200, body)).parts()


@contextmanager
def mendable_web() -> Iterator[MendableWeb]:
    """
    While inside.
    """
    with scripted_web() as web:
        yield MendableWeb(web)


def retrying(rig: WorkerRig, *delays_s: float, partitions: int) -> WorkerRig:
    """
    The rig with these delays, no retries within the worker, and a web server that is believed.
    """
    rig.configure(
        f"retry.delays_s={list(delays_s)}",
        "retry.in_process=0",
        "fetch.allow_http=true",
        "fetch.allow_private_addresses=true",
        "fetch.breaker_failures=1000",
    )
    return rig.create_topics(partitions)


def enveloped(url: str, name: str) -> Event:
    """
    An upload with an id of its own.
    """
    return upload_event(name, {"kind": "https", "url": url}, event_id=str(uuid4()))


def bare(url: str, name: str) -> Event:
    """
    An upload that is known by where it lies alone.
    """
    event = upload_event(name, {"kind": "https", "url": url})
    return Event(event.key, event.value, ())


def event_id_of(rig: WorkerRig, published: Published) -> str:
    """
    Which event it is, wherever it is tried.
    """
    told = dict(published.event.headers).get("ce_id")
    return told.decode() if told else str(bare_event_id(rig.settings.kafka.topics.uploads, *published.position))


def waiting(rig: WorkerRig, step: int) -> list[RawEvent]:
    """
    All that was ever written to one of the retry topics, the first being 0.
    """
    return list(collect(rig.settings.kafka, rig.settings.retry_topics[step]))
