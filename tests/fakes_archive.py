"""
An archive of sightings in a dictionary, held to the same contract as those over a file and a topic.
"""

import threading
from collections.abc import Mapping, Sequence

from worker.adapters.sighting_codec import SightingScope
from worker.domain import ContentHash, Sighting
from worker.errors import ArchiveUnavailable
from worker.views import has_shift

Archived = dict[tuple[SightingScope, ContentHash], Sighting]


class InMemoryArchive:
    """
    A ``SightingArchive``. Two of them over the same ``archived`` are two workers over the same file.

    While ``down`` is True it can be neither asked nor told anything. ``asked`` holds what ``recall`` was asked for.
    """

    def __init__(self, scope: SightingScope, *, archived: Archived | None = None) -> None:
        self.down = False
        self.asked: list[ContentHash] = []
        self._scope = scope
        self._archived: Archived = {} if archived is None else archived
        self._lock = threading.Lock()

    def recall(self, hashes: Sequence[ContentHash]) -> Mapping[ContentHash, Sighting]:
        """
        What is kept of these bytes.
        """
        with self._lock:
            self._require_up()
            self.asked += hashes
            found = {content_hash: self._archived.get((self._scope, content_hash)) for content_hash in hashes}
        return {content_hash: sighting for content_hash, sighting in found.items() if sighting is not None}

    def keep(self, sightings: Mapping[ContentHash, Sighting]) -> None:
        """
        Keep these sightings in the place of others, but for one with its shift in the place of one without.
        """
        with self._lock:
            self._require_up()
            for content_hash, sighting in sightings.items():
                before = self._archived.get((self._scope, content_hash))
                if before is None or not has_shift(before) or has_shift(sighting):
                    self._archived[self._scope, content_hash] = sighting

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Remove these bytes in every scope.
        """
        with self._lock:
            self._require_up()
            gone = [key for key in self._archived if key[1] in set(hashes)]
            for key in gone:
                del self._archived[key]
            return len(gone)

    def close(self) -> None:
        """
        Nothing is held.
        """

    def _require_up(self) -> None:
        if self.down:
            raise ArchiveUnavailable("the archive in memory is down; the test has it so")
