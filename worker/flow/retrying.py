"""
Whether, where and when an upload is tried again that failed for a reason which time may mend.

Pure, but for chance, which comes from outside. Waiting within the process is in ``later.py``; the retry topics are the
adapters' business.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from schemas.errors import ErrorClass, ErrorCode, Stage, class_of
from worker.domain import Origin, RawEvent
from worker.errors import UploadFailed
from worker.outcomes import Deferred

SPREAD: Final = 0.1
"""By which share a delay is lengthened at most, by chance: what failed together is not tried again together."""

NOT_AT_ONCE: Final = frozenset({ErrorCode.FETCH_HOST_DOWN})
"""Codes that say already that there was no use in asking: the next moment will not be better."""

_AROUND_HEADER_BYTES: Final = 10
_AROUND_RECORD_BYTES: Final = 1_024
"""What a batch adds to its one record, and our headers: four numbers, and the name of a topic."""

Draw = Callable[[], float]
"""A number from 0 to 1, by chance."""


@dataclass(frozen=True, slots=True)
class Retries:
    """
    How often an upload is tried again: at most ``in_process`` times at once, then once for each of ``delays_s``.

    The waits within the process are drawn below ``first_wait_s``, doubled from one to the next up to
    ``longest_wait_s``. A record that takes more than ``most_bytes`` of a retry topic ends here, which is one with more
    headers than planned for. Without arguments nothing is tried again.
    """

    in_process: int = 0
    first_wait_s: float = 0.2
    longest_wait_s: float = 2.0
    delays_s: tuple[float, ...] = ()
    most_bytes: int | None = None

    def wait_s(self, failure: UploadFailed, tries: int, draw: Draw) -> float | None:
        """
        How long to wait before a fetch is tried again that was tried again ``tries`` times; None where it is not.

        Who asks for a longer wait than is kept here is left to the retry topics.
        """
        if failure.stage is not Stage.FETCH or class_of(failure.code) is not ErrorClass.TRANSIENT:
            return None
        asked_s = failure.retry_after_s or 0.0
        if tries >= self.in_process or failure.code in NOT_AT_ONCE or asked_s > self.longest_wait_s:
            return None
        drawn_s = draw() * min(self.longest_wait_s, self.first_wait_s * 2.0**tries)
        return max(asked_s, drawn_s)

    def put_off(self, raw: RawEvent, failure: UploadFailed, *, now_s: float, draw: Draw) -> Deferred | None:
        """
        The upload on its way to a retry topic; None where it ends here. ``now_s`` is in seconds since the epoch.

        Who asks for a long wait goes to the first topic that waits so long, and to the last where none does, for at
        most as long as that one waits: nobody's answer may hold up what lies behind it in a topic.
        """
        attempts = 1 if raw.origin is None else raw.origin.attempts + 1
        if class_of(failure.code) is not ErrorClass.TRANSIENT or attempts > len(self.delays_s):
            return None
        if self.most_bytes is not None and put_off_bytes(raw) > self.most_bytes:
            return None
        asked_s = failure.retry_after_s or 0.0
        steps = range(attempts - 1, len(self.delays_s))
        step = next((at for at in steps if self.delays_s[at] >= asked_s), steps[-1])
        partition, offset = raw.first_place
        origin = Origin(
            partition=partition,
            offset=offset,
            timestamp_ms=raw.first_timestamp_ms,
            attempts=attempts,
            first_failed_at_s=now_s if raw.origin is None else raw.origin.first_failed_at_s,
            redriven=raw.origin is not None and raw.origin.redriven,
        )
        delay_s = self.delays_s[step] * (1.0 + SPREAD * draw())
        return Deferred(raw, origin, failure.code, step, now_s + delay_s)


def put_off_bytes(raw: RawEvent) -> int:
    """
    About how much a record takes of a retry topic's ``max.message.bytes``, with our headers behind its own; never less.
    """
    headers = sum(len(name.encode()) + len(value or b"") + _AROUND_HEADER_BYTES for name, value in raw.headers)
    # One number for each header without a value is written down.
    nulls = sum(value is None for _, value in raw.headers) * len(f"{len(raw.headers)},")
    return len(raw.key or b"") + len(raw.value or b"") + headers + nulls + _AROUND_RECORD_BYTES


NO_RETRIES: Final = Retries()
"""Every failure is final at once: in replays, in scans, and where an operator wants it so."""
