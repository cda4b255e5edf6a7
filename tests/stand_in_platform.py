"""
A Kafka and workers behind it for stress runs: every upload is answered at once, unless it is said otherwise.
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from worker.adapters.kafka_platform import PublishedEvent
from worker.adapters.kafka_stress import Acknowledged, ReadRecord

PARTITIONS = 2
Answer = tuple[int, float]
"""The number of an upload that a verdict answers, and how many seconds it takes."""


def at_once(number: int) -> list[Answer]:
    """
    Each upload has its own verdict.
    """
    return [(number, 0.0)]


class StandInPlatform:
    """
    Uploads take turns at two partitions, and verdicts lie in the partition of their upload.

    ``answers`` tells what is answered when the upload of a number arrives; ``refuses`` are numbers that are not taken.
    ``send_takes_s`` is how long a send holds the sender; without ``acknowledges`` nothing is ever heard of any.
    """

    def __init__(
        self,
        answers: Callable[[int], Sequence[Answer]] = at_once,
        *,
        members: int | None = 1,
        refuses: frozenset[int] = frozenset(),
        send_takes_s: float = 0.0,
        acknowledges: bool = True,
        status: str = "decided",
    ) -> None:
        self.sent: list[PublishedEvent] = []
        self._answers = answers
        self._members = members
        self._refuses = refuses
        self._send_takes_s = send_takes_s
        self._acknowledges = acknowledges
        self._status = status
        self._lock = threading.Lock()
        self._acknowledged: list[Acknowledged] = []
        self._due: list[tuple[float, int]] = []
        self._written = dict.fromkeys(range(PARTITIONS), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def members(self) -> int | None:
        """
        As was said.
        """
        return self._members

    def send(self, number: int, event: PublishedEvent) -> None:
        """
        Take it, or refuse it, and have it answered.
        """
        if self._send_takes_s:
            threading.Event().wait(self._send_takes_s)
        now_s = time.monotonic()
        with self._lock:
            self.sent.append(event)
            if not self._acknowledges:
                return
            if number in self._refuses:
                self._acknowledged.append(Acknowledged(number, None, "the record is too large"))
                return
            self._acknowledged.append(Acknowledged(number, _place_of(number)))
            self._due += [(now_s + wait_s, answered) for answered, wait_s in self._answers(number)]

    def take_acknowledged(self) -> Sequence[Acknowledged]:
        """
        What was acknowledged since the last call.
        """
        with self._lock:
            taken, self._acknowledged = self._acknowledged, []
        return taken

    def read(self, wait_s: float) -> Sequence[ReadRecord]:
        """
        The verdicts that are due, in the order in which they became so.
        """
        threading.Event().wait(min(wait_s, 0.001))
        now_s = time.monotonic()
        with self._lock:
            due = sorted(one for one in self._due if one[0] <= now_s)
            self._due = [one for one in self._due if one[0] > now_s]
            return [self._verdict(number, now_s) for _, number in due]

    def _verdict(self, number: int, now_s: float) -> ReadRecord:
        partition, offset = _place_of(number)
        event = next(one for one in reversed(self.sent) if _id_of(one).endswith(f"-{number}"))
        data = {
            "verdict_id": f"verdict-{number}",
            "input": {"event_id": _id_of(event), "partition": partition, "offset": offset},
            "outcome": {"status": self._status},
            "timing": {"batch_size": 2, "encode_ms": 5.0, "total_ms": 6.0},
        }
        place = (partition, self._written[partition])
        self._written[partition] += 1
        return ReadRecord("verdicts", place, json.dumps(data).encode(), now_s)


def _place_of(number: int) -> tuple[int, int]:
    return number % PARTITIONS, number // PARTITIONS


def _id_of(event: PublishedEvent) -> str:
    return dict(event.headers)["ce_id"].decode()
