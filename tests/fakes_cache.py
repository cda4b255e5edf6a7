"""
A cache of embeddings in a dictionary, held to the same contract as the one over Redis.
"""

import threading
from collections.abc import Mapping, Sequence

from worker.adapters.sighting_codec import SightingScope
from worker.domain import ContentHash, Sighting
from worker.ports import Remembered
from worker.views import has_shift

Kept = dict[tuple[SightingScope, ContentHash], Remembered]


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

    def recall(self, hashes: Sequence[ContentHash]) -> Mapping[ContentHash, Remembered] | None:
        """
        What is known of these bytes; None while down.
        """
        with self._lock:
            self.asked += len(hashes)
            if self.down:
                return None
            found = {content_hash: self._found(content_hash) for content_hash in hashes}
        return {content_hash: one for content_hash, one in found.items() if one is not None}

    def _found(self, content_hash: ContentHash) -> Remembered | None:
        known = self._kept.get((self._scope, content_hash))
        return known or self._kept.get((_of_decoders(self._scope), content_hash))

    def remember(self, found: Mapping[ContentHash, Remembered]) -> frozenset[ContentHash]:
        """
        Keep these, unless others are kept already; a sighting with its shift is kept in any case.
        """
        with self._lock:
            if not self.down:
                for content_hash, one in found.items():
                    scope = self._scope if isinstance(one, Sighting) else _of_decoders(self._scope)
                    at = (scope, content_hash)
                    if isinstance(one, Sighting) and has_shift(one):
                        self._kept[at] = one
                    self._kept.setdefault(at, one)
        return frozenset()

    def close(self) -> None:
        """
        Nothing is held.
        """


def _of_decoders(scope: SightingScope) -> SightingScope:
    # Whether bytes are a readable image is no matter of the encoder, the views or the rules of the facts.
    return SightingScope("", 0, "", "", decoders=scope.decoders)
