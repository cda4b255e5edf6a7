"""
The stages, each with its inbox and its threads.

    submit ─▶ fetch ─▶ recall ─┬─ known ───────────────────────────┬─▶ judge ─▶ take_settled
             (threads)         └─ unknown ─▶ decode ─▶ encode ─────┘      └─▶ remember
                                            (threads)  (micro-batches of pictures, with all their views)

Each upload ends exactly once, as an outcome or, where its slot was forgotten, as nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import structlog

from schemas.errors import Stage
from schemas.verdict import CacheStatus
from worker.domain import (
    ContentHash,
    FetchedUpload,
    Outcome,
    Provenance,
    RawEvent,
    Sighting,
    Upload,
)
from worker.errors import UploadFailed
from worker.flow.byte_budget import ByteBudget
from worker.flow.containment import as_failure, as_unreadable, recalled, remembered
from worker.flow.crew import Crew
from worker.flow.encoding import SightingMaker
from worker.flow.inbox import Inbox
from worker.flow.judging import Judge
from worker.flow.lines import Slot
from worker.flow.micro_batch import MicroBatcher
from worker.flow.single_flight import Boarding, SingleFlight
from worker.flow.travellers import Decoded, Failed, Fetched, Known, Passenger, Unknown
from worker.ports import Clock, EmbeddingCache, Encoder, PictureDecoder, Recorder
from worker.views import GLOBAL_ONLY, Picture, ViewSpec

log = structlog.get_logger(__name__)

RECALL_LIMIT = 128
"""Hashes asked of the cache in one round trip."""

JUDGE_LIMIT = 256
"""Embeddings searched together."""


@dataclass(frozen=True, slots=True)
class StageSet:
    """
    What the pipeline calls, in the order of the way; ``cache`` is None where none is configured.

    ``views`` are those that the decoder makes.
    """

    read_event: Callable[[RawEvent], Upload]
    fetch: Callable[[Upload], FetchedUpload]
    cache: EmbeddingCache | None
    decoder: PictureDecoder
    encoder: Encoder
    judge: Judge
    views: ViewSpec = GLOBAL_ONLY


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """
    Threads, bytes and the closing of micro-batches.
    """

    fetch_threads: int
    decode_threads: int
    batch_size: int
    batch_deadline_s: float
    max_bytes: int
    recent_embeddings: int


class Pipeline:
    """
    Runs uploads through the stages side by side; the order is restored by the lines, not here.
    """

    def __init__(self, stages: StageSet, limits: PipelineLimits, *, clock: Clock, recorder: Recorder) -> None:
        self._stages = stages
        self._limits = limits
        self._clock = clock
        self._recorder = recorder
        self._crew = Crew()
        self._budget = ByteBudget(limits.max_bytes)
        self._sightings = SightingMaker(
            stages.encoder,
            stages.judge,
            stages.views,
            batch_size=limits.batch_size,
            clock=clock,
            recorder=recorder,
        )
        self._flights: SingleFlight[Passenger] = SingleFlight(recent=limits.recent_embeddings)
        self._to_fetch: Inbox[Slot] = Inbox(readers=limits.fetch_threads)
        self._to_recall: Inbox[Fetched] = Inbox()
        self._to_decode: Inbox[Unknown] = Inbox(readers=limits.decode_threads)
        self._to_encode: MicroBatcher[Decoded] = MicroBatcher(
            size=limits.batch_size, deadline_s=limits.batch_deadline_s, clock=clock
        )
        self._to_judge: Inbox[Known] = Inbox()
        self._to_remember: Inbox[tuple[ContentHash, Sighting]] = Inbox()
        self._settled: SimpleQueue[tuple[Slot, Outcome]] = SimpleQueue()

    def start(self) -> None:
        """
        Start the threads.
        """
        for number in range(self._limits.fetch_threads):
            self._crew.start(f"fetch-{number}", self._fetch_all)
        for number in range(self._limits.decode_threads):
            self._crew.start(f"decode-{number}", self._decode_all)
        self._crew.start("recall", self._recall_all)
        self._crew.start("encode", self._encode_all)
        self._crew.start("judge", self._judge_all)
        self._crew.start("remember", self._remember_all)

    def submit(self, slot: Slot) -> None:
        """
        Start an upload on its way; never blocks.
        """
        self._to_fetch.put(slot)

    def take_settled(self) -> Sequence[tuple[Slot, Outcome]]:
        """
        The outcomes that have arrived since the last call; never blocks.
        """
        settled = []
        try:
            while True:
                settled.append(self._settled.get_nowait())
        except Empty:
            return settled

    @property
    def has_room(self) -> bool:
        """
        False while as many image bytes are held as may be.
        """
        return not self._budget.full

    def check(self) -> None:
        """
        Raise if a thread has died.
        """
        self._crew.check()

    def close(self, timeout_s: float) -> None:
        """
        Let every thread finish what is queued, and end; one that hangs is left behind and named in the log.
        """
        self._budget.close()
        for inbox in (self._to_fetch, self._to_recall, self._to_decode, self._to_judge, self._to_remember):
            inbox.close()
        self._to_encode.close()
        left_behind = self._crew.join(timeout_s)
        if left_behind:
            log.warning("threads.left_behind", threads=left_behind, waited_s=timeout_s)

    # fetch: one upload at a time, in many threads

    def _fetch_all(self) -> None:
        for slot in self._to_fetch:
            upload = None if slot.forgotten else self._read(slot)
            if upload is not None:
                self._fetch(slot, upload)

    def _read(self, slot: Slot) -> Upload | None:
        try:
            return self._stages.read_event(slot.event)
        except Exception as fault:  # noqa: BLE001 - one record's fault is that record's dead letter
            self._settle(slot, self._stages.judge.dead_letter(slot.event, as_unreadable(fault)))
            return None

    def _fetch(self, slot: Slot, upload: Upload) -> None:
        self._budget.pass_door()
        if slot.forgotten:
            return
        try:
            fetched = self._stages.fetch(upload)
        except Exception as fault:  # noqa: BLE001 - one upload's fault is that upload's failed verdict
            self._fail(Failed(slot, upload, as_failure(fault, Stage.FETCH)))
            return
        self._budget.hold(len(fetched.data))
        passenger = Passenger(slot, upload, fetched.content_hash, len(fetched.data), fetched.fetch_ms)
        self._to_recall.put(Fetched(passenger, fetched.data))

    # recall: all that is waiting, in one round trip

    def _recall_all(self) -> None:
        for batch in self._to_recall.batches(RECALL_LIMIT):
            leaders = [fetched for fetched in batch if self._board(fetched)]
            self._recall(leaders)

    def _board(self, fetched: Fetched) -> bool:
        passenger = fetched.passenger
        boarding = self._flights.board(passenger.content_hash, passenger)
        if boarding is Boarding.LEADER:
            return True
        self._budget.free(passenger.byte_length)
        if isinstance(boarding, Sighting):
            self._reuse(passenger, boarding, Provenance("hit", "process"))
        return False

    def _recall(self, leaders: Sequence[Fetched]) -> None:
        status: CacheStatus = "disabled"
        known = None
        if self._stages.cache is not None and leaders:
            known = recalled(self._stages.cache, [fetched.passenger.content_hash for fetched in leaders])
            status = "bypass" if known is None else "miss"
            known = known and self._sightings.as_if_new(known)
        for fetched in leaders:
            passenger = fetched.passenger
            sighting = known.get(passenger.content_hash) if known else None
            if sighting is None:
                self._to_decode.put(Unknown(fetched, status))
                continue
            self._budget.free(passenger.byte_length)
            self._reuse(passenger, sighting, Provenance("hit", "redis"))
            self._land(passenger, sighting)

    # decode: one picture at a time, in many threads

    def _decode_all(self) -> None:
        for unknown in self._to_decode:
            self._decode(unknown)

    def _decode(self, unknown: Unknown) -> None:
        passenger = unknown.fetched.passenger
        began_s = self._clock.monotonic_s()
        try:
            decoded = self._stages.decoder.decode(unknown.fetched.data, passenger.content_hash)
            decode_ms = (self._clock.monotonic_s() - began_s) * 1000
            picture = Picture(passenger.content_hash, decoded, decode_ms)
        except Exception as fault:  # noqa: BLE001 - one picture's fault is that upload's failed verdict
            self._crash_land(passenger, as_failure(fault, Stage.DECODE))
        else:
            self._to_encode.put(Decoded(passenger, picture, unknown.status))
        finally:
            self._budget.free(passenger.byte_length)

    # encode: micro-batches, in the one thread that owns the encoder

    def _encode_all(self) -> None:
        while (taken := self._to_encode.take()) is not None:
            batch, reason = taken
            self._recorder.count("micro_batches_total", reason=reason)
            self._recorder.observe("micro_batch_size", len(batch))
            self._encode(batch)

    def _encode(self, batch: Sequence[Decoded]) -> None:
        pictures = [decoded.picture for decoded in batch]
        try:
            encoded = self._sightings.make(pictures)
        except UploadFailed as failure:
            for decoded in batch:
                self._crash_land(decoded.passenger, failure)
            return
        for decoded, sighting in zip(batch, encoded.results, strict=True):
            if isinstance(sighting, UploadFailed):
                self._crash_land(decoded.passenger, sighting)
                continue
            picture = decoded.picture
            provenance = Provenance(decoded.status, None, picture.decode_ms, encoded.encode_s * 1000, len(batch))
            # Remembered first: once the last upload is judged the worker may leave, and what is queued is still kept.
            if self._stages.cache is not None:
                self._to_remember.put((picture.content_hash, sighting))
            self._to_judge.put(Known(decoded.passenger, sighting, provenance))
            self._land(decoded.passenger, sighting)

    # judge and remember: all that is waiting, together

    def _judge_all(self) -> None:
        for batch in self._to_judge.batches(JUDGE_LIMIT):
            wanted = [known for known in batch if not known.passenger.slot.forgotten]
            if wanted:
                self._judge(wanted)

    def _judge(self, batch: Sequence[Known]) -> None:
        try:
            outcomes = self._stages.judge.judge(batch)
        except Exception as fault:  # noqa: BLE001 - judged again one by one, so that a fault stays with its upload
            if len(batch) > 1:
                for known in batch:
                    self._judge([known])
                return
            passenger = batch[0].passenger
            self._fail(Failed(passenger.slot, passenger.upload, as_failure(fault, Stage.DECIDE), passenger))
            return
        for known, outcome in zip(batch, outcomes, strict=True):
            self._settle(known.passenger.slot, outcome)

    def _remember_all(self) -> None:
        for batch in self._to_remember.batches(RECALL_LIMIT):
            if self._stages.cache is not None:
                remembered(self._stages.cache, dict(batch))

    # endings

    def _reuse(self, passenger: Passenger, sighting: Sighting, provenance: Provenance) -> None:
        self._recorder.count("embeddings_reused_total", tier=provenance.tier or "coalesced")
        self._to_judge.put(Known(passenger, sighting, provenance))

    def _land(self, leader: Passenger, sighting: Sighting) -> None:
        for follower in self._flights.land(leader.content_hash, sighting):
            self._reuse(follower, sighting, Provenance("coalesced"))

    def _crash_land(self, leader: Passenger, failure: UploadFailed) -> None:
        for passenger in (leader, *self._flights.land(leader.content_hash, None)):
            self._fail(Failed(passenger.slot, passenger.upload, failure, passenger))

    def _fail(self, failed: Failed) -> None:
        self._settle(failed.slot, self._stages.judge.fail(failed))

    def _settle(self, slot: Slot, outcome: Outcome) -> None:
        self._settled.put((slot, outcome))
