"""
What a fault that nobody foresaw becomes: the trouble of one upload or of one question, and nobody else's.

Only faults that are somebody's are contained here; those of the encoder's device and of a thread itself are not.
"""

from collections.abc import Mapping, Sequence

import structlog

from schemas.errors import ErrorCode, Stage
from worker.domain import ContentHash, Sighting
from worker.errors import EventUnreadable, UploadFailed
from worker.flow.judging import Judge
from worker.ports import EmbeddingCache, Remembered

log = structlog.get_logger(__name__)


def as_failure(fault: Exception, stage: Stage) -> UploadFailed:
    """
    The failure of the upload in whose hands ``stage`` broke.
    """
    if isinstance(fault, UploadFailed):
        return fault
    log.error("upload.unexpected_fault", stage=stage, error=type(fault).__name__, exc_info=fault)
    return UploadFailed(ErrorCode.INTERNAL, f"unexpected {type(fault).__name__}", stage=stage)


def as_unreadable(fault: Exception) -> EventUnreadable:
    """
    Why a record has no upload: left in its place, one that breaks the reader would stop its partition for ever.
    """
    if isinstance(fault, EventUnreadable):
        return fault
    log.error("event.unexpected_fault", error=type(fault).__name__, exc_info=fault)
    return EventUnreadable(ErrorCode.INTERNAL, f"unexpected {type(fault).__name__}")


def recalled(cache: EmbeddingCache, hashes: Sequence[ContentHash]) -> Mapping[ContentHash, Remembered] | None:
    """
    What the cache knows of these bytes; None when it could not be asked, also when it raised, which it promises not to.
    """
    try:
        return cache.recall(hashes)
    except Exception:
        log.exception("cache.unexpected_fault", asked=len(hashes))
        return None


def remembered(cache: EmbeddingCache, found: Mapping[ContentHash, Remembered]) -> frozenset[ContentHash]:
    """
    Tell the cache, at best effort: one that raises, which it promises not to, costs an embedding later.
    """
    try:
        return cache.remember(found)
    except Exception:
        log.exception("cache.unexpected_fault", told=len(found))
        return frozenset()


def wanted_shift(judge: Judge, sightings: Sequence[Sighting]) -> list[bool]:
    """
    Which of these the judge wants the shift of; asked one by one when it broke, and not wanted of those it broke over.

    Such an upload goes on without, and ends as the judge makes it end: nothing is lost here.
    """
    if not sightings:
        return []
    try:
        wanted = list(judge.wants_shift(sightings))
    except Exception:
        if len(sightings) > 1:
            return [wants for sighting in sightings for wants in wanted_shift(judge, [sighting])]
        log.exception("judge.unexpected_fault", content=sightings[0].facts.sha256)
        return [False]
    if len(wanted) != len(sightings):
        raise RuntimeError(f"the judge answered {len(wanted)} times to {len(sightings)} sightings")
    return wanted
