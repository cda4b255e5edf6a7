"""
Which published outcomes the broker has acknowledged: filled by kafka-python's IO thread, drained by the consumer's.
"""

import itertools
import threading
import time
from collections.abc import Callable, Sequence

from worker.domain import Partition
from worker.errors import PublishFailed
from worker.flow.bell import Bell
from worker.ports import PositionDone


class Acknowledgements:
    """
    Published positions until they are acknowledged. Safe for any thread.

    ``timeout_s`` is how long one may take; a position that is older was forgotten by the client, which should have
    failed it long before. ``bell`` rings for each position that is acknowledged or has failed.
    """

    def __init__(
        self, *, timeout_s: float, bell: Bell | None = None, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._bell = Bell() if bell is None else bell
        self._timeout_s = timeout_s
        self._monotonic_s = monotonic_s
        self._changed = threading.Condition()
        self._tickets = itertools.count()
        # By ticket and not by position: a position that went and came back is published anew before its first time is
        # acknowledged. In the order of publishing, so the first is the oldest.
        self._waiting: dict[int, tuple[PositionDone, float]] = {}
        self._missing: dict[int, int] = {}
        self._done: list[PositionDone] = []
        self._failure: str | None = None

    @property
    def oldest_s(self) -> float:
        """
        For how many seconds the oldest has waited; 0 where none waits.
        """
        with self._changed:
            since_s = next((since_s for _, since_s in self._waiting.values()), None)
        return 0.0 if since_s is None else max(0.0, self._monotonic_s() - since_s)

    def expect(self, partition: Partition, offset: int, *, messages: int = 1) -> int:
        """
        A ticket for a position that is about to be published, in so many messages.
        """
        with self._changed:
            ticket = next(self._tickets)
            self._waiting[ticket] = ((partition, offset), self._monotonic_s())
            self._missing[ticket] = messages
        return ticket

    def settle(self, ticket: int) -> None:
        """
        The broker has acknowledged a message of it; the last one settles the position.
        """
        with self._changed:
            if ticket not in self._waiting:  # another message of it has failed
                return
            self._missing[ticket] -= 1
            if self._missing[ticket]:
                return
            del self._missing[ticket]
            self._done.append(self._waiting.pop(ticket)[0])
            self._changed.notify_all()
        self._bell.ring()

    def fail(self, ticket: int, reason: str) -> None:
        """
        The broker will not acknowledge a message of it; the first failure is the one that is told.
        """
        with self._changed:
            if ticket not in self._waiting:
                return
            (partition, offset), _ = self._waiting.pop(ticket)
            del self._missing[ticket]
            if self._failure is None:
                self._failure = unpublished(partition, offset, reason)
            self._changed.notify_all()
        self._bell.ring()

    def take(self) -> Sequence[PositionDone]:
        """
        What was acknowledged since the last call. Never blocks.

        Raises ``PublishFailed`` once one has failed, or is overdue.
        """
        with self._changed:
            self._raise_failure()
            done, self._done = self._done, []
        return done

    def wait_all(self, timeout_s: float) -> None:
        """
        Block until nothing waits. Raises ``PublishFailed`` when one has failed, or after ``timeout_s``.
        """
        with self._changed:
            settled = self._changed.wait_for(lambda: not self._waiting or self._failure is not None, timeout_s)
            self._raise_failure()
            if not settled:
                raise PublishFailed(
                    f"{len(self._waiting)} outcomes were not acknowledged within {timeout_s:g} s. "
                    "Their events stay uncommitted and are read again; check the brokers, then restart."
                )

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise PublishFailed(self._failure)
        if self._waiting:
            (partition, offset), since_s = next(iter(self._waiting.values()))
            if self._monotonic_s() - since_s > self._timeout_s:
                raise PublishFailed(unpublished(partition, offset, f"no answer within {self._timeout_s:g} s"))


def unpublished(partition: Partition, offset: int, reason: str) -> str:
    """
    What to tell an operator about an outcome that did not arrive.
    """
    return (
        f"The outcome of {partition.topic}-{partition.number} offset {offset} was not acknowledged: {reason}. "
        "Its event stays uncommitted and is read again after a restart."
    )
