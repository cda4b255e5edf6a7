"""
The shadow: a candidate that judges a share of the uploads once more, beside the live judge, on the same sighting.

Whatever becomes of the candidate or of its topic, the live outcomes neither wait for it nor know of it. What the
candidate is made of is in ``worker.operation.shadowing``; its Kafka producer is in ``worker.adapters.kafka_shadow``.
"""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

import structlog

from schemas.uploaded import InlineRef
from worker.domain import RawEvent, Sighting, Upload
from worker.errors import EventUnreadable
from worker.flow.crew import Crew
from worker.flow.judging import Judge
from worker.flow.lines import Slot
from worker.flow.travellers import Failed, Known
from worker.outcomes import Message, Outcome
from worker.ports import Recorder

log = structlog.get_logger(__name__)

BATCH_LIMIT: Final = 64
"""Uploads that the candidate judges together: few, so that little is under way when the worker leaves."""

COMPLAIN_EVERY_S: Final = 60.0
_HASH_RANGE: Final = float(1 << 64)

Result = Literal["judged", "failed", "dropped", "published", "unacknowledged"]


class ShadowOutbox(Protocol):
    """
    Where the candidate's verdicts go. Called by the shadow's thread, and closed by the one that closes the shadow.
    """

    def publish(self, message: Message, done: Callable[[str | None], None]) -> None:
        """
        Hand a message over; may block for a few seconds.

        ``done`` is called at most once, by any thread: with None when the broker has it, else with the reason why not.
        """

    def close(self) -> None:
        """
        Wait a moment for what is under way, and release what is held.
        """


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    Who judges in the shadow, and the message that its outcome becomes.
    """

    judge: Judge
    serialise: Callable[[Outcome], Message]


@dataclass(frozen=True, slots=True)
class ShadowLimits:
    """
    Which share of the uploads is judged, above 0 and at most 1, and how many of them may wait.
    """

    sample_rate: float
    max_waiting: int

    @property
    def sampled_rate(self) -> int:
        """
        CloudEvents' ``sampledrate``: one in so many, rounded where the share is no such fraction.
        """
        return max(1, round(1 / self.sample_rate))

    def chooses(self, upload: Upload) -> bool:
        """
        Whether an upload is of the sample: decided by its event's source and id, so the same in every run and worker.

        A larger share contains every smaller one.
        """
        identity = upload.identity
        digest = hashlib.sha256(f"{identity.source}\0{identity.id}".encode(errors="surrogatepass")).digest()
        return int.from_bytes(digest[:8]) < self.sample_rate * _HASH_RANGE


class Shadow:
    """
    The candidate's queue and thread. ``offer`` never blocks and never raises; a full queue drops, and counts.

    Conservation: each upload that was offered and chosen is counted once as judged, failed or dropped, and each that
    was judged once as published or unacknowledged, when ``close`` has returned.
    """

    def __init__(self, candidate: Candidate, outbox: ShadowOutbox, *, limits: ShadowLimits, recorder: Recorder) -> None:
        self._candidate = candidate
        self._outbox = outbox
        self._limits = limits
        self._recorder = recorder
        self._crew = Crew()
        self._changed = threading.Condition()
        self._waiting: deque[Known] = deque()
        self._in_hand = 0
        self._unanswered = 0
        self._closing = False
        self._left_behind = False
        self._closed = False
        self._complained_s: dict[str, float] = {}
        self._kept_silent: dict[str, int] = {}

    def start(self) -> None:
        """
        Start the thread.
        """
        self._crew.start("shadow", self._run)

    def offer(self, known: Sequence[Known]) -> None:
        """
        Queue those of the sample, without the bytes that came with their events.
        """
        try:
            chosen = [_without_bytes(one) for one in known if self._limits.chooses(one.passenger.upload)]
        except Exception as fault:  # noqa: BLE001 - told and counted: the caller holds outcomes that must go out
            self._lost("failed", len(known), _text(fault))
            return
        with self._changed:
            room = 0 if self._closing else max(0, self._limits.max_waiting - len(self._waiting))
            self._waiting.extend(chosen[:room])
            self._changed.notify_all()
        if len(chosen) > room:
            reason = f"{self._limits.max_waiting} uploads wait already: the candidate is slower than the sample comes"
            self._lost("dropped", len(chosen) - room, reason)

    def close(self, timeout_s: float) -> None:
        """
        Let the candidate judge what is queued for at most so long, and drop the rest; nothing is published afterwards.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        names = self._crew.join(timeout_s)
        with self._changed:
            self._left_behind = True
            dropped = len(self._waiting) + self._in_hand
            self._waiting.clear()
            self._in_hand = 0
        if dropped:
            self._lost("dropped", dropped, "the worker left before the candidate had judged them")
        if names:
            log.warning("threads.left_behind", threads=names, waited_s=timeout_s)
        self._outbox.close()
        with self._changed:
            unanswered, self._unanswered, self._closed = self._unanswered, 0, True
        if unanswered:
            self._lost("unacknowledged", unanswered, "the worker left before the broker had answered")

    def _run(self) -> None:
        while batch := self._take():
            self._judge(batch)
            with self._changed:
                self._in_hand = 0

    def _take(self) -> list[Known]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            batch = [self._waiting.popleft() for _ in range(min(BATCH_LIMIT, len(self._waiting)))]
            self._in_hand = len(batch)
        return batch

    def _judge(self, batch: Sequence[Known]) -> None:
        began_s = time.monotonic()
        try:
            outcomes = self._candidate.judge.judge(batch)
            messages = [self._candidate.serialise(outcome) for outcome in outcomes]
        except Exception as fault:  # noqa: BLE001 - judged again one by one, so that a fault stays with its upload
            if len(batch) > 1:
                for known in batch:
                    self._judge([known])
                return
            if self._finished(1):
                self._lost("failed", 1, _text(fault))
            return
        self._recorder.observe("shadow_seconds", time.monotonic() - began_s)
        if self._finished(len(batch), judged=len(messages)):
            self._recorder.count("shadow_total", len(messages), result="judged")
            for message in messages:
                self._publish(message)

    def _finished(self, count: int, *, judged: int = 0) -> bool:
        """
        Whether these still count: not once the thread was left behind, for they were counted as dropped.

        What was ``judged`` is unanswered from now on: the thread may hang on its way to the broker.
        """
        with self._changed:
            self._in_hand = max(0, self._in_hand - count)
            self._unanswered += 0 if self._left_behind else judged
            return not self._left_behind

    def _publish(self, message: Message) -> None:
        with self._changed:
            if self._closed:
                return
        try:
            self._outbox.publish(message, self._answered)
        except Exception as fault:  # noqa: BLE001 - told and counted: whatever it is, it is the shadow's own trouble
            self._answered(_text(fault))

    def _answered(self, reason: str | None) -> None:
        with self._changed:
            if self._unanswered == 0:
                return
            self._unanswered -= 1
        if reason is None:
            self._recorder.count("shadow_total", result="published")
        else:
            self._lost("unacknowledged", 1, reason)

    def _lost(self, result: Result, count: int, reason: str) -> None:
        self._recorder.count("shadow_total", count, result=result)
        now_s = time.monotonic()
        with self._changed:
            silent = self._kept_silent.get(result, 0) + count
            if now_s - self._complained_s.get(result, float("-inf")) < COMPLAIN_EVERY_S:
                self._kept_silent[result] = silent
                return
            self._complained_s[result] = now_s
            self._kept_silent[result] = 0
        log.warning("shadow.lost", result=result, uploads=silent, reason=reason, told_every_s=COMPLAIN_EVERY_S)


@dataclass(frozen=True, slots=True)
class ShadowingJudge:
    """
    Implements ``worker.flow.judging.Judge``: the live judge's answers, of which the shadow hears afterwards.
    """

    live: Judge
    shadow: Shadow

    def judge(self, known: Sequence[Known]) -> list[Outcome]:
        """
        The live outcomes; what the live judge could not judge is not offered.
        """
        outcomes = self.live.judge(known)
        self.shadow.offer(known)
        return outcomes

    def wants_shift(self, sightings: Sequence[Sighting]) -> Sequence[bool]:
        """
        What the live judge wants: a shift that only the candidate would want is a missing head in its verdict.
        """
        return self.live.wants_shift(sightings)

    def fail(self, failed: Failed) -> Outcome:
        """
        The live judge's; where nothing was seen there is nothing for a candidate to judge.
        """
        return self.live.fail(failed)

    def dead_letter(self, raw: RawEvent, unreadable: EventUnreadable) -> Outcome:
        """
        The live judge's.
        """
        return self.live.dead_letter(raw, unreadable)


def _without_bytes(known: Known) -> Known:
    # What waits here is bounded by its number: an event may hold a whole image, which no judge looks at.
    passenger = known.passenger
    upload = replace(passenger.upload, raw=replace(passenger.upload.raw, value=None, headers=()))
    image = upload.data.image
    if isinstance(image.ref, InlineRef):
        image = image.model_copy(update={"ref": image.ref.model_copy(update={"base64": ""})})
        upload = replace(upload, data=upload.data.model_copy(update={"image": image}))
    return replace(known, passenger=replace(passenger, slot=Slot(upload.raw), upload=upload))


def _text(fault: Exception) -> str:
    return f"{type(fault).__name__}: {fault}"
