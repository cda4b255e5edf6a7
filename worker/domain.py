"""
The values that pass between the stages, in the order in which they arise.

All are frozen. A constructor checks its invariant; after that nobody checks again. The wire types of ``schemas`` begin
where a value leaves the process, and nowhere earlier. How an upload ends is in ``worker.outcomes``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple, NewType, Self

import numpy as np
from numpy.typing import NDArray

from schemas.judgement import AttributionV1, CalibrationV1
from schemas.uploaded import ImageUploadedV1
from schemas.verdict import (
    Action,
    CacheStatus,
    Envelope,
    Evidence,
    ImageFacts,
    Reason,
    ScoreComponent,
    Thresholds,
)

ContentHash = NewType("ContentHash", str)
"""sha256 of an image's bytes, 64 hex digits: who the bytes are."""

Label = NewType("Label", str)
"""One of the labels that a bank's manifest declares, such as ``real`` or ``ai_generated``."""

Pixels = NDArray[np.uint8]
Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """
    One partition of one topic.
    """

    topic: str
    number: int


@dataclass(frozen=True, slots=True)
class Origin:
    """
    Where a record lay first, and what became of it so far: of one that is tried again.

    ``attempts`` counts how often its upload has failed, ``timestamp_ms`` is the first record's own; times are since the
    epoch. ``redriven``: it failed for good once, and an operator sent it again.
    """

    partition: Partition
    offset: int
    timestamp_ms: int | None
    attempts: int
    first_failed_at_s: float
    redriven: bool = False


@dataclass(frozen=True, slots=True)
class RawEvent:
    """
    One record of the upload topic, as it lay there, or of a retry topic, with where it lay first.

    ``received_at_s`` is the worker's clock (seconds since the epoch) when it was polled. Key, value and headers are
    those of the first record; ``partition`` and ``offset`` say where it was read now, and are what is committed.
    ``fault`` is what is wrong with a record that cannot be read, or with one of a retry topic that does not say where
    it lay first; it is not ``whole`` where key, value or headers are not those that lie there.
    """

    partition: Partition
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int | None = None
    received_at_s: float = 0.0
    origin: Origin | None = None
    fault: str | None = None
    whole: bool = True

    @property
    def first_place(self) -> tuple[Partition, int]:
        """
        Partition and offset at which the record lay first: who it is, if nothing in it says so.
        """
        return (self.partition, self.offset) if self.origin is None else (self.origin.partition, self.origin.offset)

    @property
    def first_timestamp_ms(self) -> int | None:
        """
        The record's time stamp when it lay there.
        """
        return self.timestamp_ms if self.origin is None else self.origin.timestamp_ms


@dataclass(frozen=True, slots=True)
class EventIdentity:
    """
    Who an event is, from its CloudEvents envelope or, without one, from where it lay.
    """

    id: str
    source: str
    time: datetime | None
    envelope: Envelope
    correlation_id: str | None = None
    trace: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Upload:
    """
    A readable upload event.
    """

    raw: RawEvent
    identity: EventIdentity
    data: ImageUploadedV1

    @property
    def key(self) -> bytes:
        """
        The key of every outcome of this upload: the event's own, so that order per key holds from topic to topic.
        """
        return self.raw.key if self.raw.key is not None else self.data.content_id.encode()


@dataclass(frozen=True, slots=True)
class FetchedUpload:
    """
    An upload with its bytes, and who they are.
    """

    upload: Upload
    data: bytes = field(repr=False)
    content_hash: ContentHash
    fetch_ms: float


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """
    How a decoded RGB picture becomes the encoder's input: resize, crop, then ``(x / 255 - mean) / std``.

    ``jpeg_oversampling``: a JPEG may be decoded at a half, a quarter or an eighth of its size as long as both sides
    stay at least so many times ``size``; 0: never. ``jpeg_decoder``: what decodes plain JPEGs, the last two on torch's
    device. ``resize``: whose resizing. ``sha256`` identifies all of it, the version of the rules included.
    """

    size: int
    resize_mode: Literal["shortest", "longest", "squash"]
    interpolation: Literal["bicubic", "bilinear"]
    fill_color: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    sha256: str
    jpeg_oversampling: int = 0
    jpeg_decoder: Literal["pillow", "libjpeg", "nvjpeg"] = "pillow"
    resize: Literal["pillow", "torch"] = "pillow"


@dataclass(frozen=True, slots=True)
class EncoderFingerprint:
    """
    What makes two encoders the same: architecture, weights, preprocessing and precision.

    ``space`` is the sha256 over architecture, weights and preprocessing: vectors of one space may be compared (a bank
    checks with its probe that the precisions agree well enough). ``id`` adds the precision: vectors of one id are
    equal.
    """

    model: str
    architecture_sha256: str
    weights_sha256: str
    preprocess: PreprocessSpec
    precision: str
    dim: int
    space: str
    id: str


@dataclass(frozen=True, slots=True)
class Embedding:
    """
    A unit vector, float32[d], exactly as the cache and the bank can hold it.

    Build it with ``from_features``, which rounds through float16 once: what is recalled equals what was computed.
    """

    vector: Vector = field(repr=False)

    def __post_init__(self) -> None:
        if self.vector.dtype != np.float32 or self.vector.ndim != 1:
            raise ValueError(f"vector is {self.vector.dtype}{list(self.vector.shape)}, want float32[d]")
        norm = math.sqrt(np.dot(self.vector, self.vector))  # half the time of numpy's own norm
        if not abs(norm - 1.0) < 1e-3:  # noqa: PLR2004 - float16 rounding moves a norm by less; NaN fails this too
            raise ValueError(f"vector has norm {norm}, want 1")

    @classmethod
    def from_features(cls, features: NDArray[np.floating]) -> Self:
        """
        The unit vector in the direction of raw encoder features.

        Raises ``ValueError`` when the features are not finite or have no direction.
        """
        raw = np.asarray(features, dtype=np.float32)
        norm = float(np.linalg.norm(raw))
        if not np.isfinite(norm) or norm < 1e-12:  # noqa: PLR2004 - no direction
            raise ValueError(f"features have norm {norm}, want a finite number above 0")
        return cls.from_half((raw / norm).astype(np.float16))

    @classmethod
    def from_half(cls, half: NDArray[np.float16]) -> Self:
        """
        The embedding that was stored as float16[d].
        """
        return cls(half.astype(np.float32))

    def as_half(self) -> NDArray[np.float16]:
        """
        The embedding as float16[d]; nothing is lost.
        """
        return self.vector.astype(np.float16)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Sighting:
    """
    What is known of some bytes: where they lie in the encoder's space, and what the decoder found.

    ``embedding`` is that of the global view and ``norm`` the length of its raw features; ``native`` are those of the
    native-resolution crops. ``realism`` and ``shift`` (in the order of ``worker.heads.features.REALISM`` and ``SHIFT``)
    are None where they were not measured. ``further``: the other looks at the picture, as in ``DecodedPicture``.
    """

    embedding: Embedding
    facts: ImageFacts
    norm: float = math.nan
    native: tuple[Embedding, ...] = ()
    realism: tuple[float, ...] | None = None
    shift: tuple[float, ...] | None = None
    further: "tuple[Sighting, ...]" = ()

    @property
    def looks(self) -> "tuple[Sighting, ...]":
        """
        All looks at the picture, this one first.
        """
        return (self, *self.further)


@dataclass(frozen=True, slots=True)
class Provenance:
    """
    How a sighting came to an upload: computed, recalled, or shared with a twin in flight.
    """

    status: CacheStatus
    tier: Literal["process", "redis", "archive"] | None = None
    decode_ms: float | None = None
    encode_ms: float | None = None
    batch_size: int | None = None


@dataclass(frozen=True, slots=True)
class BankEntry:
    """
    One labelled reference: ``sha256`` is that of its image's bytes.
    """

    id: str
    label: Label
    generator: str | None
    source: str | None
    licence: str | None
    sha256: str
    format: str | None
    width: int | None
    height: int | None
    byte_length: int | None


class Neighbour(NamedTuple):
    """
    One reference near to an upload; ``similarity`` is the cosine, -1 to 1.

    A tuple, for dozens are made for every upload.
    """

    entry: BankEntry
    similarity: float


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """
    The nearest references of each label, nearest first; every label of the bank is a key.

    ``sizes`` holds how many references each label has in the whole bank: votes are weighted with it.
    """

    nearest: Mapping[Label, tuple[Neighbour, ...]]
    sizes: Mapping[Label, int]


@dataclass(frozen=True, slots=True)
class BankIdentity:
    """
    Which references were asked, and which of their labels ``score`` speaks of; ``made_s`` in seconds since the epoch.
    """

    id: str
    version: str
    manifest_sha256: str
    entries: int
    index: str
    sizes: Mapping[Label, int]
    positive: Label
    made_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Judgement:
    """
    What a policy makes of a neighbourhood, and of an assessment where the bank carries a fitted judgement.

    ``probability``, ``calibration`` and ``attribution`` are None without an assessment.
    """

    status: Literal["decided", "abstained"]
    label: Label | None
    action: Action
    score: float
    margin: float
    reasons: tuple[Reason, ...]
    thresholds: Thresholds
    scores: tuple[ScoreComponent, ...]
    evidence: Evidence
    probability: float | None = None
    calibration: CalibrationV1 | None = None
    attribution: AttributionV1 | None = None
    missing_heads: tuple[str, ...] = ()
