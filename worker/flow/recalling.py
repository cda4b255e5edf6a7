"""
What is known of some bytes already, asked of the shared cache first and of the archive for what is left.

Where an upload goes with the answer is in ``pipeline.py``; what lies in either place is the adapters' business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from schemas.errors import ErrorCode
from schemas.verdict import CacheStatus
from worker.domain import ContentHash, Sighting
from worker.flow.containment import recalled
from worker.flow.encoding import SightingMaker
from worker.flow.travellers import Passenger
from worker.flow.upload_spans import for_each
from worker.ports import EmbeddingCache, SightingArchive
from worker.spans import UNTRACED, Tracer

Tier = Literal["redis", "archive"]


@dataclass(frozen=True, slots=True)
class Recalled:
    """
    What is known, and where it was found; ``otherwise`` is what a verdict says of an embedding that was not.

    ``failed`` are bytes that are no readable image, with the code that they failed with; the cache alone knows such.
    """

    known: Mapping[ContentHash, tuple[Sighting, Tier]]
    otherwise: CacheStatus
    failed: Mapping[ContentHash, ErrorCode] = field(default_factory=dict)


class Memory:
    """
    A cache and an archive, either of which may be missing. Called by the recall thread only.

    A cache that cannot be asked costs hits; an archive that cannot be read raises ``ArchiveUnavailable``.
    """

    def __init__(
        self,
        cache: EmbeddingCache | None,
        archive: SightingArchive | None,
        sightings: SightingMaker,
        tracer: Tracer = UNTRACED,
    ) -> None:
        self._cache = cache
        self._archive = archive
        self._sightings = sightings
        self._tracer = tracer

    def of_bytes_in_hand(self, passengers: Sequence[Passenger]) -> Recalled:
        """
        What is known of bytes that were fetched: only what is as this worker would make it now.
        """
        return self._ask(passengers, {})

    def of_bytes_elsewhere(self, passengers: Sequence[Passenger]) -> Recalled:
        """
        What is known of bytes that were not fetched, a sighting that lacks its shift included.

        Its verdict names the head that had to do without: better than to ask for an image that may be gone.
        """
        spare: dict[ContentHash, tuple[Sighting, Tier]] = {}
        found = self._ask(passengers, spare)
        return Recalled({**spare, **found.known}, found.otherwise)

    def _ask(self, passengers: Sequence[Passenger], spare: dict[ContentHash, tuple[Sighting, Tier]]) -> Recalled:
        """
        What is known and complete; ``spare`` gets what is known and lacks a shift that is wanted.
        """
        known: dict[ContentHash, tuple[Sighting, Tier]] = {}
        hashes = list(dict.fromkeys(passenger.content_hash for passenger in passengers))
        if not hashes or (self._cache is None and self._archive is None):
            return Recalled(known, "disabled")
        otherwise: CacheStatus = "miss"
        failed: dict[ContentHash, ErrorCode] = {}
        with for_each(self._tracer, "recall", [passenger.slot for passenger in passengers]):
            if self._cache is not None:
                answer = recalled(self._cache, hashes)
                otherwise = "bypass" if answer is None else "miss"
                found = (answer or {}).items()
                seen = {content_hash: one for content_hash, one in found if isinstance(one, Sighting)}
                failed |= {content_hash: one for content_hash, one in found if not isinstance(one, Sighting)}
                self._take(seen, "redis", known, spare)
            left = [one for one in hashes if one not in known and one not in failed]
            if self._archive is not None and left:
                self._take(self._archive.recall(left), "archive", known, spare)
        return Recalled(known, otherwise, failed)

    def _take(
        self,
        answer: Mapping[ContentHash, Sighting],
        tier: Tier,
        known: dict[ContentHash, tuple[Sighting, Tier]],
        spare: dict[ContentHash, tuple[Sighting, Tier]],
    ) -> None:
        complete = self._sightings.as_if_new(answer)
        for content_hash, sighting in answer.items():
            if content_hash in complete:
                known[content_hash] = (complete[content_hash], tier)
            else:
                spare.setdefault(content_hash, (sighting, tier))
