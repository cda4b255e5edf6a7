"""
All that outlives an upload here: sightings that landed lately, and those on their way into the cache and the archive.

Together because they forget together. Each of them is in a module of its own.
"""

from collections.abc import Sequence

from worker.domain import ContentHash
from worker.flow.crew import Crew
from worker.flow.forgotten import ForgottenLately
from worker.flow.inbox import Inbox
from worker.flow.keeping import Keeper
from worker.flow.remembering import Measured, Rememberer, Unreadable
from worker.flow.single_flight import SingleFlight
from worker.flow.stage_set import PipelineLimits, StageSet
from worker.flow.travellers import Passenger
from worker.ports import Clock, Recorder


class Kept:
    """
    What is kept of the uploads of one pipeline, by it and for others; any thread may call.
    """

    def __init__(
        self,
        stages: StageSet,
        limits: PipelineLimits,
        *,
        to_remember: Inbox[Measured | Unreadable],
        clock: Clock,
        recorder: Recorder,
    ) -> None:
        self._forgotten = ForgottenLately()
        self.flights: SingleFlight[Passenger] = SingleFlight(
            clock,
            recent=limits.recent_embeddings,
            failure_known_s=limits.failure_known_s,
            forgotten=self._forgotten,
        )
        self._rememberer = Rememberer(stages.cache, to_remember, self._forgotten)
        self.keeper = Keeper(stages.keep, recorder, self._forgotten)

    @property
    def turn(self) -> int:
        """
        What an upload must carry whose bytes are asked for now.
        """
        return self._forgotten.turn

    def start(self, crew: Crew) -> None:
        """
        Start the threads that write; the keeper's is its own.
        """
        crew.start("remember", self._rememberer.work)
        self.keeper.start()

    def offer(self, measured: Measured) -> None:
        """
        Have this written to the cache and to the archive, where there are such; never blocks.
        """
        self._rememberer.offer(measured)
        self.keeper.offer(measured)

    def offer_failure(self, unreadable: Unreadable) -> None:
        """
        Have it written to the cache that these bytes are no readable image; never blocks.

        Not to the archive: a replay under another decoder must ask anew.
        """
        self._rememberer.offer(unreadable)

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Drop these bytes; when it returns, nothing of uploads whose bytes were asked for before is written any more.

        Whether such an upload is in flight or its sighting queued: whoever then removes the bytes from the cache and
        the archive removes them for good. Returns how many were remembered or queued. Raises ``StoreUnavailable`` or
        ``ArchiveUnavailable`` when a write that began earlier does not end.
        """
        self._forgotten.tell(hashes)  # first: whatever has not begun to be written asks for it
        dropped = self.flights.forget(hashes) + self.keeper.forget(hashes)
        self._rememberer.settle()
        return dropped

    def forgotten_elsewhere(self) -> Sequence[ContentHash]:
        """
        Bytes that others forgot while they were in flight here, since the last call.
        """
        return self._rememberer.forgotten_elsewhere()
