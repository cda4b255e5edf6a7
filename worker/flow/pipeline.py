"""
The stages, each with its inbox and its threads.

    submit ─▶ fetch ─▶ recall ─┬─ known ───────────────────────────┬─▶ judge ─▶ take_settled
             (threads)         └─ unknown ─▶ decode ─▶ encode ─────┘      └─▶ remember, keep
                                            (threads)  (micro-batches of pictures, with all their views)

An upload whose bytes an earlier verdict names is recalled first, and fetched only where nothing is known of them.
Each upload ends exactly once, as an outcome or, where its slot was forgotten, as nothing.
"""

from collections.abc import Sequence
from functools import partial

import structlog

from schemas.errors import ErrorCode, Stage
from worker.domain import ContentHash, Provenance, Sighting
from worker.errors import TouchstoneError, UploadFailed
from worker.flow.bell import Bell
from worker.flow.byte_budget import ByteBudget
from worker.flow.coming import Coming
from worker.flow.containment import as_failure
from worker.flow.crew import Crew
from worker.flow.encoding import SightingMaker
from worker.flow.endings import Endings
from worker.flow.fetching import Fetching
from worker.flow.inbox import Inbox
from worker.flow.kept import Kept
from worker.flow.landings import Landings
from worker.flow.lines import Slot
from worker.flow.micro_batch import MicroBatcher
from worker.flow.progress import PipelineLoad
from worker.flow.queues import Queues
from worker.flow.recalling import Memory
from worker.flow.remembering import Measured, Unreadable
from worker.flow.single_flight import Boarding
from worker.flow.stage_set import PipelineLimits, StageSet
from worker.flow.travellers import Decoded, Failed, Fetched, Known, Passenger, Unfetched, Unknown
from worker.flow.unreadable import known_failure
from worker.outcomes import Outcome
from worker.ports import Clock, Recorder
from worker.spans import UNTRACED, Tracer
from worker.views import Picture

log = structlog.get_logger(__name__)

RECALL_LIMIT = 128
"""Hashes asked of the cache in one round trip."""

JUDGE_LIMIT = 256
"""Micro-batches, and recalled sightings, that are searched together."""


class Pipeline:
    """
    Runs uploads through the stages side by side; the order is restored by the lines, not here.
    """

    def __init__(
        self,
        stages: StageSet,
        limits: PipelineLimits,
        *,
        clock: Clock,
        recorder: Recorder,
        tracer: Tracer = UNTRACED,
        bell: Bell | None = None,
    ) -> None:
        self._tracer = tracer
        self._stages = stages
        self._limits = limits
        self._clock = clock
        self._recorder = recorder
        self._crew = Crew()
        self._budget = ByteBudget(limits.max_bytes)
        self._makers = _makers(stages, limits, clock, recorder)
        self._memory = Memory(stages.cache, stages.archive, self._makers[0], tracer)
        self._queues = Queues(clock=clock, recorder=recorder)
        self._coming = coming = Coming()
        self._to_fetch: Inbox[Slot | Unfetched] = self._queues.inbox(
            "fetch", readers=limits.fetch_threads, coming=coming
        )
        self._to_recall: Inbox[Fetched | Passenger] = self._queues.inbox("recall", coming=coming)
        self._to_decode: Inbox[Unknown] = self._queues.inbox("decode", readers=limits.decode_threads, coming=coming)
        self._to_encode: MicroBatcher[Decoded] = self._queues.batcher(
            "encode",
            size=limits.batch_size,
            deadline_s=limits.batch_deadline_s,
            coming=coming,
            takers=limits.encode_threads if limits.share_batches else 1,
        )
        self._to_judge: Inbox[Sequence[Known]] = self._queues.inbox("judge")
        to_remember: Inbox[Measured | Unreadable] = self._queues.inbox("remember")
        self._kept = Kept(stages, limits, to_remember=to_remember, clock=clock, recorder=recorder)
        self._flights = self._kept.flights
        self._endings = Endings(stages.judge, limits.retries, clock, bell=bell)
        self._landings = Landings(self._kept, self._endings, self._to_judge, recorder)
        self._fetching = Fetching(
            stages,
            self._to_fetch,
            self._to_recall.put,
            endings=self._endings,
            kept=self._kept,
            budget=self._budget,
            retries=limits.retries,
            clock=clock,
            recorder=recorder,
            tracer=tracer,
        )

    def start(self) -> None:
        """
        Start the threads.
        """
        self._fetching.start(self._crew, self._limits.fetch_threads)
        for number in range(self._limits.decode_threads):
            self._crew.start(f"decode-{number}", self._decode_all)
        self._crew.start("recall", self._recall_all)
        for number, maker in enumerate(self._makers):
            self._crew.start(f"encode-{number}", partial(self._encode_all, maker))
        self._crew.start("judge", self._judge_all)
        self._kept.start(self._crew)

    def submit(self, slots: Sequence[Slot]) -> None:
        """
        Start uploads on their way; never blocks. No micro-batch closes for want of others before all have set out.
        """
        self._coming.more()
        self._to_fetch.put_all(slots)
        self._coming.fewer()

    def take_settled(self) -> Sequence[tuple[Slot, Outcome]]:
        """
        The outcomes that have arrived since the last call; never blocks.
        """
        return self._endings.take()

    @property
    def has_room(self) -> bool:
        """
        False while as many image bytes are held as may be.
        """
        return not self._budget.full

    def load(self) -> PipelineLoad:
        """
        What waits and what is held at this moment; any thread may ask.
        """
        busy = sum(maker.busy.share() for maker in self._makers) / len(self._makers)
        return PipelineLoad(self._queues.waiting(), self._budget.held, busy)

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Drop what this process remembers of these bytes, or would still keep: see ``Kept.forget``, also what it raises.
        """
        return self._kept.forget(hashes)

    def forgotten_elsewhere(self) -> Sequence[ContentHash]:
        """
        Bytes that others forgot while they were in flight here, since the last call: they are to be forgotten here too.
        """
        return self._kept.forgotten_elsewhere()

    def check(self) -> None:
        """
        Raise if a thread has died.
        """
        self._crew.check()
        self._kept.keeper.check()

    def close(self, timeout_s: float) -> None:
        """
        Let every thread finish what is queued, and end; one that hangs is left behind and named in the log.
        """
        self._fetching.close()
        self._budget.close()
        self._queues.close()
        left_behind = self._crew.join(timeout_s)
        if left_behind:
            log.warning("threads.left_behind", threads=left_behind, waited_s=timeout_s)
        self.keep_the_rest(timeout_s)

    def keep_the_rest(self, timeout_s: float) -> None:
        """
        Write what is still to be kept, within ``timeout_s``; what comes later is skipped.
        """
        self._kept.keeper.close(timeout_s)

    # recall: all that is waiting, in one round trip

    def _recall_all(self) -> None:
        self._stages.before_searching()  # for the shift of what is known: see wants_shift
        for batch in self._to_recall.batches(RECALL_LIMIT):
            self._recall_unfetched([one for one in batch if isinstance(one, Passenger) and not one.slot.forgotten])
            self._recall(self._board_all([one for one in batch if isinstance(one, Fetched)]))

    def _recall_unfetched(self, batch: Sequence[Passenger]) -> None:
        """
        They lead no flight, and nobody waits for them: what is unknown is fetched, and boards then.
        """
        landed = {one.content_hash: self._flights.landed(one.content_hash) for one in batch}
        unknown = [one for one in batch if not isinstance(landed[one.content_hash], Sighting)]
        answer = self._memory.of_bytes_elsewhere(unknown)
        together: list[Known] = []
        for one in batch:
            found = answer.known.get(one.content_hash)
            if isinstance(sighting := landed[one.content_hash], Sighting):
                together.append(Known(one, sighting, Provenance("hit", "process")))
            elif found is not None:
                together.append(Known(one, found[0], Provenance("hit", found[1])))
            else:
                self._to_fetch.put(Unfetched(one.slot, one.upload, one.supersedes, one.content_hash, answer.otherwise))
        self._landings.reuse(together)

    def _board_all(self, batch: Sequence[Fetched]) -> list[Fetched]:
        """
        Those that lead a flight; of the others' bytes something is known already, or somebody else is finding out.
        """
        leaders: list[Fetched] = []
        known: list[Known] = []
        for fetched in batch:
            passenger = fetched.passenger
            boarding = self._flights.board(passenger.content_hash, passenger)
            if boarding is Boarding.LEADER:
                leaders.append(fetched)
                continue
            self._budget.free(passenger.byte_length)
            if isinstance(boarding, Sighting):
                known.append(Known(passenger, boarding, Provenance("hit", "process")))
            elif isinstance(boarding, ErrorCode):
                self._landings.fail_again(passenger, boarding)
        self._landings.reuse(known)
        return leaders

    def _recall(self, leaders: Sequence[Fetched]) -> None:
        answer = self._memory.of_bytes_in_hand([one.passenger for one in leaders if one.asked is None])
        together: list[Known] = []
        for fetched in leaders:
            passenger = fetched.passenger
            if (code := answer.failed.get(passenger.content_hash)) is not None:
                self._budget.free(passenger.byte_length)
                self._landings.crash(passenger, known_failure(code), Provenance("hit", "redis"), kept=True)
                continue
            if (found := answer.known.get(passenger.content_hash)) is None:
                self._to_decode.put(Unknown(fetched, fetched.asked or answer.otherwise))
                continue
            self._budget.free(passenger.byte_length)
            self._kept.keeper.offer(Measured(passenger.content_hash, found[0], passenger.turn))
            together.append(Known(passenger, found[0], Provenance("hit", found[1])))
        self._landings.reuse(together)
        for known in together:
            self._landings.land(known.passenger, known.sighting)

    # decode: one picture at a time, in many threads

    def _decode_all(self) -> None:
        for unknown in self._to_decode:
            self._decode(unknown)

    def _decode(self, unknown: Unknown) -> None:
        passenger = unknown.fetched.passenger
        began_s = self._clock.monotonic_s()
        try:
            with self._tracer.start("decode", passenger.slot.span):
                decoded = self._stages.decoder.decode(unknown.fetched.data, passenger.content_hash)
            decode_ms = (self._clock.monotonic_s() - began_s) * 1000
            picture = Picture(passenger.content_hash, decoded, decode_ms)
        except TouchstoneError:
            raise  # there is no decoder any more, which is no picture's fault: it ends the worker
        except Exception as fault:  # noqa: BLE001 - one picture's fault is that upload's failed verdict
            self._landings.crash(passenger, as_failure(fault, Stage.DECODE))
        else:
            self._to_encode.put(Decoded(passenger, picture, unknown.status))
        finally:
            self._budget.free(passenger.byte_length)

    # encode: micro-batches, in as many threads as the encoder has instances

    def _encode_all(self, maker: SightingMaker) -> None:
        while (taken := self._to_encode.take()) is not None:
            batch, reason = taken
            self._recorder.count("micro_batches_total", reason=reason)
            self._recorder.observe("micro_batch_size", len(batch))
            self._encode(batch, maker)

    def _encode(self, batch: Sequence[Decoded], maker: SightingMaker) -> None:
        pictures = [decoded.picture for decoded in batch]
        try:
            with self._tracer.gather("encode", [decoded.passenger.slot.span for decoded in batch]):
                encoded = maker.make(pictures)
        except UploadFailed as failure:
            for decoded in batch:
                self._landings.crash(decoded.passenger, failure)
            return
        together: list[Known] = []
        for decoded, sighting in zip(batch, encoded.results, strict=True):
            if isinstance(sighting, UploadFailed):
                self._landings.crash(decoded.passenger, sighting)
                continue
            picture = decoded.picture
            provenance = Provenance(decoded.status, None, picture.decode_ms, encoded.encode_s * 1000, len(batch))
            # Remembered first: once the last upload is judged the worker may leave, and what is queued is still kept.
            self._kept.offer(Measured(picture.content_hash, sighting, decoded.passenger.turn))
            together.append(Known(decoded.passenger, sighting, provenance))
        # As one item: what was encoded together is judged in one call, so that no bank is exchanged in between.
        self._to_judge.put(together)
        for known in together:
            self._landings.land(known.passenger, known.sighting)

    # judge: all that is waiting, together

    def _judge_all(self) -> None:
        self._stages.before_searching()
        for batches in self._to_judge.batches(JUDGE_LIMIT):
            wanted = [known for batch in batches for known in batch if not known.passenger.slot.forgotten]
            if wanted:
                self._judge(wanted)

    def _judge(self, batch: Sequence[Known]) -> None:
        try:
            with self._tracer.gather("judge", [known.passenger.slot.span for known in batch]):
                outcomes = self._stages.judge.judge(batch)
        except Exception as fault:  # noqa: BLE001 - judged again one by one, so that a fault stays with its upload
            if len(batch) > 1:
                for known in batch:
                    self._judge([known])
                return
            passenger = batch[0].passenger
            self._endings.fail(Failed.of(passenger, as_failure(fault, Stage.DECIDE)))
            return
        slots = [known.passenger.slot for known in batch]
        self._endings.settle_all(zip(slots, outcomes, strict=True))


def _makers(stages: StageSet, limits: PipelineLimits, clock: Clock, recorder: Recorder) -> list[SightingMaker]:
    """
    One for each thread that encodes.
    """
    encoder, judge, views, size = stages.encoder, stages.judge, stages.views, limits.batch_size
    return [
        SightingMaker(encoder, judge, views, batch_size=size, clock=clock, recorder=recorder)
        for _ in range(limits.encode_threads)
    ]
