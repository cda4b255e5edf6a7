"""
The first stage of the pipeline: from a slot to the bytes of its upload, tried again a few times where that may help.

What becomes of the bytes is in ``pipeline.py``; where they come from is the adapters' business.
"""

from collections.abc import Callable

from schemas.errors import Stage
from worker.domain import Upload
from worker.flow.byte_budget import ByteBudget
from worker.flow.containment import as_failure, as_unreadable
from worker.flow.crew import Crew
from worker.flow.endings import CHANCE, Endings
from worker.flow.inbox import Inbox
from worker.flow.kept import Kept
from worker.flow.later import Later
from worker.flow.lines import Slot
from worker.flow.retrying import Retries
from worker.flow.stage_set import StageSet
from worker.flow.travellers import Failed, Fetched, Passenger, Unfetched
from worker.flow.upload_spans import EVENT_ID
from worker.ports import Clock, Recorder
from worker.spans import Tracer


class Fetching:
    """
    Reads events and fetches their bytes, one upload at a time, in many threads.

    An upload whose bytes an earlier verdict names is passed on without them. No thread is held while an upload waits to
    be fetched again, and no bytes are.
    """

    def __init__(
        self,
        stages: StageSet,
        waiting: Inbox[Slot | Unfetched],
        pass_on: Callable[[Fetched | Passenger], None],
        *,
        endings: Endings,
        kept: Kept,
        budget: ByteBudget,
        retries: Retries,
        clock: Clock,
        recorder: Recorder,
        tracer: Tracer,
    ) -> None:
        self._stages = stages
        self._waiting = waiting
        self._pass_on = pass_on
        self._endings = endings
        self._kept = kept
        self._budget = budget
        self._retries = retries
        self._recorder = recorder
        self._tracer = tracer
        self._later = Later(waiting.put, clock)

    def start(self, crew: Crew, threads: int) -> None:
        """
        Start the threads that fetch, and the one behind which uploads wait.
        """
        for number in range(threads):
            crew.start(f"fetch-{number}", self._work)
        crew.start("later", self._later.work)

    def close(self) -> None:
        """
        Nobody waits for what is to be fetched again.
        """
        self._later.close()

    def _work(self) -> None:
        for task in self._waiting:
            if isinstance(task, Unfetched):
                self._fetch(task)
            elif not task.forgotten and (upload := self._read(task)) is not None:
                self._depart(task, upload)

    def _depart(self, slot: Slot, upload: Upload) -> None:
        turn = self._kept.turn
        past = None if self._stages.past is None else self._stages.past.of(upload)
        if past is None or past.content_hash is None:
            self._fetch(Unfetched(slot, upload, None if past is None else past.verdict_id))
        else:
            self._pass_on(Passenger(slot, upload, past.content_hash, past.byte_length, None, past.verdict_id, turn))

    def _read(self, slot: Slot) -> Upload | None:
        try:
            upload = self._stages.read_event(slot.event)
        except Exception as fault:  # noqa: BLE001 - one record's fault is that record's dead letter
            self._endings.bury(slot, as_unreadable(fault))
            return None
        slot.span.set(EVENT_ID, upload.identity.id)
        slot.place = self._stages.place_of(upload)
        return upload

    def _fetch(self, unfetched: Unfetched) -> None:
        slot, upload, supersedes = unfetched.slot, unfetched.upload, unfetched.supersedes
        self._budget.pass_door()
        if slot.forgotten:
            return
        turn = self._kept.turn
        try:
            with self._tracer.start("fetch", slot.span):
                fetched = self._stages.fetch(upload)
        except Exception as fault:  # noqa: BLE001 - one upload's fault is that upload's failed verdict
            self._fail(unfetched, fault)
            return
        self._budget.hold(len(fetched.data))
        passenger = Passenger(slot, upload, fetched.content_hash, len(fetched.data), fetched.fetch_ms, supersedes, turn)
        asked = unfetched.asked if fetched.content_hash == unfetched.expected else None
        self._pass_on(Fetched(passenger, fetched.data, asked))

    def _fail(self, unfetched: Unfetched, fault: Exception) -> None:
        failure = as_failure(fault, Stage.FETCH)
        wait_s = self._retries.wait_s(failure, unfetched.tries, CHANCE)
        if wait_s is None:
            self._endings.fail(Failed(unfetched.slot, unfetched.upload, failure, supersedes=unfetched.supersedes))
            return
        self._recorder.count("retries_total", where="process", code=failure.code)
        self._later.put(unfetched.again(), wait_s)
