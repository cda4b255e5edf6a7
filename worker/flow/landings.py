"""
What becomes of uploads when something is known of their bytes: they are judged, or they fail, and their followers too.

Who shares a flight is in ``single_flight.py``; what an ending is, in ``endings.py``.
"""

from collections import Counter
from collections.abc import Sequence

from schemas.errors import ErrorCode
from worker.domain import Provenance, Sighting
from worker.errors import UploadFailed
from worker.flow.endings import Endings
from worker.flow.inbox import Inbox
from worker.flow.kept import Kept
from worker.flow.remembering import Unreadable
from worker.flow.travellers import NOT_REACHED, Failed, Known, Passenger
from worker.flow.unreadable import LASTING, known_failure
from worker.ports import Recorder


class Landings:
    """
    Where flights end; any thread may call, and nothing here blocks.
    """

    def __init__(self, kept: Kept, endings: Endings, to_judge: Inbox[Sequence[Known]], recorder: Recorder) -> None:
        self._kept = kept
        self._flights = kept.flights
        self._endings = endings
        self._to_judge = to_judge
        self._recorder = recorder

    def reuse(self, known: Sequence[Known]) -> None:
        """
        These need not be encoded; what is told together is judged together.
        """
        if not known:
            return
        for tier, count in Counter(one.provenance.tier or "coalesced" for one in known).items():
            self._recorder.count("embeddings_reused_total", count, tier=tier)
        self._to_judge.put(known)

    def land(self, leader: Passenger, sighting: Sighting) -> None:
        """
        The leader was served; its followers are now.
        """
        followers = self._flights.land(leader.content_hash, sighting, turn=leader.turn)
        self.reuse([Known(follower, sighting, Provenance("coalesced")) for follower in followers])

    def crash(
        self, leader: Passenger, failure: UploadFailed, provenance: Provenance = NOT_REACHED, *, kept: bool = False
    ) -> None:
        """
        The leader has failed, and its followers with it; what no time mends is known to twins to come.

        ``kept``: it was recalled, and need not be written again; nor is it known here then, where it would be known
        for another ``failure_known_s`` after the cache has let go of it.
        """
        code = failure.code if failure.code in LASTING and not kept else None
        followers = self._flights.land(leader.content_hash, code, turn=leader.turn)
        if code is not None:
            self._kept.offer_failure(Unreadable(leader.content_hash, code, leader.turn))
        self._endings.fail(Failed.of(leader, failure, provenance))
        for follower in followers:
            shared = NOT_REACHED if provenance is NOT_REACHED else Provenance("coalesced")
            self._endings.fail(Failed.of(follower, failure, shared))

    def fail_again(self, passenger: Passenger, code: ErrorCode) -> None:
        """
        These bytes have failed lately, with this code.
        """
        self._endings.fail(Failed.of(passenger, known_failure(code), Provenance("hit", "process")))
