"""
When a poll of kafka-python's consumer has something to give: a fetch was answered, or it is time to look at the rest.

Each poll takes two or three turns through kafka-python's own thread, whatever it finds. What kafka-python put by of a
partition while that was paused is seen to here too. Polling: ``kafka_source.py``.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from worker.errors import CannotStart
from worker.flow.bell import Bell

LOOK_EVERY_S: Final = 0.5
"""How often to poll while nothing arrives: as often as a broker answers a fetch of which nothing came."""

SOON_S: Final = 0.05
"""
And while there is something to fetch and nothing is being fetched: before it is known where to read from, or while a
broker is away.
"""

_NEEDED: Final = ("_fetch_futures", "_completed_fetches", "_next_partition_records", "_paused_partition_records")


class FetchWatch:
    """
    Rings when a fetch of this consumer is answered. But for the answers it belongs to the consumer's own thread.

    Raises ``CannotStart`` with a kafka-python that keeps its fetches elsewhere: there is no public way to do this.
    """

    def __init__(self, consumer: Any, bell: Bell, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:  # noqa: ANN401 - kafka-python is untyped
        self._consumer = consumer
        self._fetcher: Any = getattr(consumer, "_fetcher", None)
        if not all(hasattr(self._fetcher, name) for name in _NEEDED):
            raise CannotStart("kafka-python fetches in another way than 3.0; install kafka-python 3.0.12")
        self._bell = bell
        self._monotonic_s = monotonic_s
        self._heard: list[Any] = []
        self._arrived = True
        self._look_s = float("-inf")

    @property
    def due(self) -> bool:
        """
        Whether a poll may give something, or was put off for long enough.
        """
        return self._arrived or self._monotonic_s() >= self._look_s

    @property
    def left_s(self) -> float:
        """
        How long a poll may be put off at most.
        """
        return max(0.0, self._look_s - self._monotonic_s())

    def polling(self) -> None:
        """
        A poll begins: what arrives from now on may be missed by it.

        Without this a partition that was paused with records in hand may never be read again: kafka-python 3.0.12 does
        not fetch it before it has taken these up, and takes them up only if nothing else is in hand; what it has handed
        out to the end, which is false but not None, counts as something there and as nothing everywhere else.
        """
        self._arrived = False
        if not self._fetcher._next_partition_records:  # noqa: SLF001 - as above
            self._fetcher._next_partition_records = None  # noqa: SLF001 - as above

    def polled(self, *, taking: bool) -> None:
        """
        A poll has ended; ``taking`` says whether it was to take what lies ready.
        """
        fetcher = self._fetcher
        under_way = list(fetcher._fetch_futures)  # noqa: SLF001 - as above
        reset = getattr(fetcher, "_reset_task", None)
        if reset is not None:
            # Where to read from is being asked: there is nothing to fetch before that is known.
            under_way.append(reset)
        for future in under_way:
            # One that failed is left to the next look, or a broker that is away would be asked without a pause.
            if not any(future is known for known in self._heard):
                future.add_callback(self._answered)
        self._heard = under_way
        fetching = any(not future.is_done for future in under_way)
        to_fetch = taking and not fetching and bool(self._consumer.assignment() - self._consumer.paused())
        self._look_s = self._monotonic_s() + (SOON_S if to_fetch else LOOK_EVERY_S)
        # Of several partitions that go on, kafka-python takes up the records of one in each poll.
        put_by = fetcher._paused_partition_records.keys() - self._consumer.paused()  # noqa: SLF001 - as above
        if taking and (fetcher._completed_fetches or fetcher._next_partition_records or put_by):  # noqa: SLF001 - as above
            self._arrived = True

    def _answered(self, _response: object) -> None:
        # On kafka-python's thread, behind its own callback, which has put down what was fetched.
        self._arrived = True
        self._bell.ring()
