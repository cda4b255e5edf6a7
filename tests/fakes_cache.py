"""
A cache of embeddings in a dictionary, held to the same contract as the one over Redis.
"""

import threading
from collections.abc import Mapping, Sequence

from worker.adapters.sighting_codec import SightingScope
from worker.domain import ContentHash, Sighting

Kept = dict[tuple[SightingScope, ContentHash], Sighting]


class InMemoryCache:
    """
    An ``EmbeddingCache``. Two of them over the same ``kept`` are two workers over the same Redis.

    While ``down`` is True it can be neither asked nor told anything. ``asked`` counts what ``recall`` was asked for.
    """

    def __init__(self, scope: SightingScope, *, kept: Kept | None = None) -> None:
        self.down = False
        self.asked = 0
        self._scope = scope
        self._kept: Kept = {} if kept is None else kept
        self._lock = threading.Lock()

    def recall(self, hashes: Sequence[ContentHash]) -> Mapping[ContentHash, Sighting] | None:
        """
        What is known of these bytes; None while down.
        """
        with self._lock:
            self.asked += len(hashes)
            if self.down:
                return None
            found = {content_hash: self._kept.get((self._scope, content_hash)) for content_hash in hashes}
        return {content_hash: sighting for content_hash, sighting in found.items() if sighting is not None}

    def remember(self, sightings: Mapping[ContentHash, Sighting]) -> frozenset[ContentHash]:
        """
        Keep these sightings, unless others are kept already; one with its shift is kept in any case.
        """
        with self._lock:
            if not self.down:
                for content_hash, sighting in sightings.items():
                    if sighting.shift is not None:
                        self._kept[self._scope, content_hash] = sighting
                    self._kept.setdefault((self._scope, content_hash), sighting)
        return frozenset()

    def close(self) -> None:
        """
        Nothing is held.
        """
