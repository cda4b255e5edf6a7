"""
Where embeddings are kept for replays, as configured: in a file, in a topic, or nowhere.

The live pipeline writes there through ``worker/flow/keeping.py``; a replay reads; forgetting needs no encoder.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from worker.adapters.kafka_sightings import KafkaSightings, SightingPublisher
from worker.adapters.kafka_stretches import ReadSoFar
from worker.adapters.sighting_codec import SightingScope
from worker.adapters.sighting_file import SightingFile
from worker.adapters.sighting_rows import SightingRows
from worker.adapters.system_clock import SystemClock
from worker.ports import Forgetter, Recorder, SightingArchive
from worker.settings.tree import Settings


@contextmanager
def kept_embeddings(
    settings: Settings, scope: SightingScope, recorder: Recorder, *, progress: ReadSoFar | None = None
) -> Iterator[SightingArchive | None]:
    """
    The configured archive; None where nothing is kept. ``progress`` is told while a topic is read.

    Raises ``CannotStart`` where the file, Kafka or the topic cannot be used.
    """
    archive = _open(settings, scope, recorder, progress)
    if archive is None:
        yield None
        return
    with closing(archive):
        yield archive


@contextmanager
def open_to_forget(settings: Settings) -> Iterator[Forgetter]:
    """
    The configured archive, to forget from whatever encoder saw the bytes; none is loaded.

    Raises ``CannotStart`` where the file, Kafka or the topic cannot be used, ``ValueError`` where nothing is kept.
    """
    path = settings.embeddings.path
    if path is not None:
        with closing(SightingRows(path)) as rows:
            yield rows
    elif settings.embeddings.keep == "topic":
        with closing(SightingPublisher(settings.kafka, client_id="touchstone-forget")) as publisher:
            yield publisher
    else:
        raise ValueError("embeddings.keep is none: there is nothing to forget from")


def _open(
    settings: Settings, scope: SightingScope, recorder: Recorder, progress: ReadSoFar | None
) -> SightingArchive | None:
    embeddings = settings.embeddings
    if embeddings.path is not None:
        return SightingFile(
            embeddings.path, scope, recorder=recorder, clock=SystemClock(), retention_s=embeddings.retention_s
        )
    if embeddings.keep == "topic":
        return KafkaSightings(settings.kafka, scope, recorder=recorder, progress=progress)
    return None
