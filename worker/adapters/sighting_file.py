"""
Sightings kept for replays in a SQLite file, which the worker processes of one machine share.

How a sighting lies in a value is in ``sighting_codec.py``, how values lie in the file in ``sighting_rows.py``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from worker.adapters.sighting_codec import (
    SightingScope,
    pack_facts,
    pack_measured,
    scope_digest,
    unpack_facts,
    unpack_measured,
)
from worker.adapters.sighting_rows import Row, SightingRows
from worker.domain import ContentHash, Sighting
from worker.ports import Clock, Recorder
from worker.views import has_shift

PURGE_EVERY_S: Final = 3600.0
"""How often old rows are looked for; none outlives its time by more, while a worker keeps."""


class SightingFile:
    """
    The ``SightingArchive`` over a file. Any thread may call any method.

    A row is removed ``retention_s`` after it was kept last: then by the next process that opens the file or keeps
    something in it. None keeps for ever. Raises ``CannotStart`` as ``SightingRows`` does.
    """

    def __init__(
        self, path: Path, scope: SightingScope, *, recorder: Recorder, clock: Clock, retention_s: float | None
    ) -> None:
        self._scope = scope
        self._digest = scope_digest(scope)
        self._recorder = recorder
        self._clock = clock
        self._retention_s = retention_s
        self._rows = SightingRows(path)
        self._purge_at_s = 0.0
        self._purge()

    def recall(self, hashes: Sequence[ContentHash]) -> Mapping[ContentHash, Sighting]:
        """
        What is kept of these bytes; damaged rows are absent, and counted. Raises ``ArchiveUnavailable``.
        """
        return recall_from(self._rows, hashes, self._scope, recorder=self._recorder)

    def keep(self, sightings: Mapping[ContentHash, Sighting]) -> None:
        """
        Keep these sightings; when it returns they are in the file. Raises ``ArchiveUnavailable``.
        """
        now_s = self._clock.wall_s()
        self._rows.put(
            Row(
                content_hash=content_hash,
                scope=self._digest,
                shifted=has_shift(sighting),
                kept_at_s=now_s,
                measured=pack_measured(sighting, content_hash, self._scope),
                facts=pack_facts(sighting.facts, content_hash, self._scope),
            )
            for content_hash, sighting in sightings.items()
        )
        if self._clock.monotonic_s() >= self._purge_at_s:
            self._purge()

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Remove these bytes in every scope, so that nothing of them is left in the file. Raises ``ArchiveUnavailable``.
        """
        return self._rows.forget(hashes)

    def close(self) -> None:
        """
        Release the file.
        """
        self._rows.close()

    def _purge(self) -> None:
        self._purge_at_s = self._clock.monotonic_s() + PURGE_EVERY_S
        if self._retention_s is not None:
            self._rows.purge(before_s=self._clock.wall_s() - self._retention_s)


def recall_from(
    rows: SightingRows, hashes: Sequence[ContentHash], scope: SightingScope, *, recorder: Recorder
) -> Mapping[ContentHash, Sighting]:
    """
    What these rows have of these bytes; damaged rows are absent, and counted. Raises ``ArchiveUnavailable``.
    """
    wanted = list(dict.fromkeys(hashes))
    found = rows.get(wanted, scope_digest(scope))
    known: dict[ContentHash, Sighting] = {}
    for content_hash, (packed, text) in found.items():
        measured = unpack_measured(packed, content_hash, scope)
        facts = unpack_facts(text, content_hash, scope)
        sighting = None if measured is None or facts is None else measured.with_facts(facts)
        if sighting is not None:
            known[content_hash] = sighting
    tally = {"hit": len(known), "miss": len(wanted) - len(found), "invalid": len(found) - len(known)}
    for result, number in tally.items():
        if number:
            recorder.count("archive_reads_total", number, result=result)
    return known
