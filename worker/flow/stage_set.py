"""
What a pipeline is made of: the stages that it calls, and how much of everything it may use at once.

How uploads pass from one stage to the next is in ``pipeline.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass

from worker.domain import FetchedUpload, RawEvent, Upload
from worker.flow.judging import Judge
from worker.flow.places import Place, nowhere
from worker.flow.retrying import NO_RETRIES, Retries
from worker.flow.single_flight import FAILURE_KNOWN_S
from worker.ports import EmbeddingCache, Encoder, PastUploads, PictureDecoder, SightingArchive
from worker.views import GLOBAL_ONLY, ViewSpec


@dataclass(frozen=True, slots=True)
class StageSet:
    """
    What the pipeline calls, in the order of the way; ``cache`` is None where none is configured.

    ``views`` are those that the decoder makes. With ``past`` an upload whose bytes are known by name is looked for in
    the cache and in ``archive`` before it is fetched. ``keep`` is where what was seen is kept for later replays.
    ``place_of`` says where an upload's bytes lie, for the storm limit; it does not raise. ``before_searching`` is
    called once by each thread that searches beside the encoder: the one that judges, and the one that recalls.
    """

    read_event: Callable[[RawEvent], Upload]
    fetch: Callable[[Upload], FetchedUpload]
    cache: EmbeddingCache | None
    decoder: PictureDecoder
    encoder: Encoder
    judge: Judge
    views: ViewSpec = GLOBAL_ONLY
    past: PastUploads | None = None
    archive: SightingArchive | None = None
    keep: SightingArchive | None = None
    place_of: Callable[[Upload], Place | None] = nowhere
    before_searching: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """
    Threads, bytes, the closing of micro-batches, what is known of bytes seen lately, and how often it is tried again.

    With ``share_batches`` encoder threads share what is left when nobody else comes: they have cores of their own.
    """

    fetch_threads: int
    decode_threads: int
    batch_size: int
    batch_deadline_s: float
    max_bytes: int
    recent_embeddings: int
    failure_known_s: float = FAILURE_KNOWN_S
    retries: Retries = NO_RETRIES
    encode_threads: int = 1
    share_batches: bool = True
