"""
The seams: what the core needs from the outside, each with a real side in ``adapters`` and an in-memory one in tests.

Each method says whether it blocks, which thread may call it, how it fails and who retries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NewType, Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ErrorCode
from schemas.uploaded import UploadedImage
from worker.domain import (
    BankIdentity,
    ContentHash,
    Embedding,
    EncoderFingerprint,
    Neighbourhood,
    Partition,
    Pixels,
    RawEvent,
    Sighting,
    Upload,
)
from worker.metric_names import MetricName
from worker.outcomes import Release
from worker.views import DecodedPicture

GroupMembership = NewType("GroupMembership", object)
"""The consumer's place in its group at one moment; opaque outside the Kafka adapters."""

PositionDone = tuple[Partition, int]


class Clock(Protocol):
    """
    Time as a value.
    """

    def monotonic_s(self) -> float:
        """
        Seconds on a clock that never goes back; for ages and deadlines.
        """

    def wall_s(self) -> float:
        """
        Seconds since the epoch; for time stamps.
        """


@dataclass(frozen=True, slots=True)
class Polled:
    """
    What one poll of an event source found, to be handled in this order: forget ``revoked``, admit ``events``, publish.

    The three parts are one consistent view. ``membership`` is the last place in the group whose assignment has been
    told in full, so all that was revoked up to its generation is in this ``revoked`` or an earlier one. After any later
    revocation the broker finds it stale and refuses a transaction, or the transaction is pending before the
    partition's next owner reads its offset. Each event was read under its partition's present assignment: none is left
    over from before a revocation.
    """

    revoked: frozenset[Partition]
    events: Sequence[RawEvent]
    membership: GroupMembership


@dataclass(frozen=True, slots=True)
class Standing:
    """
    Where a source that is one of many readers stands: whether it is a member of its group, and of what it holds.

    ``lag``: per partition held, how many offsets lie between the next event and the end; None while that is unknown.
    """

    joined: bool
    lag: Mapping[Partition, int | None] = field(default_factory=dict)


class EventSource(Protocol):
    """
    Where upload events come from. Every method is called by the one thread that owns the source.
    """

    def poll(self, *, room: int, wait_s: float) -> Polled:
        """
        At most ``room`` events, in order within each partition, and what has changed since the last poll.

        Waits at most ``wait_s`` for the first event, and no longer than until somebody rings the bell of a source that
        has one. With ``room`` 0 nothing is taken and the partitions are paused,
        but membership in the group is kept alive. Raises ``WorkerCrashed`` when the source is lost for good.
        """

    def commit(self, offsets: Mapping[Partition, int]) -> bool:
        """
        Store for each partition the offset of the next event to read; blocks for one round trip.

        False when the group refused because it is rebalancing: harmless, the offsets are committed later or the events
        are read again by their new owner.
        """

    @property
    def exhausted(self) -> bool:
        """
        True when no event will ever come again; a Kafka topic never is.
        """

    def close(self) -> None:
        """
        Leave the group and release what is held. Commits nothing.
        """


class Outbox(Protocol):
    """
    Where outcomes go. ``publish`` and ``transact`` are called by the consumer thread only, and never both.
    """

    def publish(self, releases: Sequence[Release]) -> None:
        """
        Hand the messages over, in order; returns before they are acknowledged. Blocks only when the buffer is full.
        """

    def take_acknowledged(self) -> Sequence[PositionDone]:
        """
        The positions whose messages the broker has acknowledged since the last call. Never blocks.

        Raises ``PublishFailed`` as soon as one message was not acknowledged in time.
        """

    def transact(
        self, releases: Sequence[Release], offsets: Mapping[Partition, int], membership: GroupMembership
    ) -> bool:
        """
        All messages and the offsets in one transaction; blocks until it is committed.

        False when the group refused the offsets because it rebalanced: the transaction was aborted, none of the
        messages will be seen by a read_committed reader. Raises ``ProducerFenced`` or ``PublishFailed``.
        """

    def flush(self, timeout_s: float) -> None:
        """
        Block until everything published is acknowledged. Raises ``PublishFailed`` after ``timeout_s``.
        """

    def close(self) -> None:
        """
        Release what is held; what was not acknowledged may or may not arrive.
        """


class ImageStore(Protocol):
    """
    Where the bytes of an upload are. Called by many threads at once.
    """

    def read(self, image: UploadedImage) -> bytes:
        """
        The image's bytes, whole, within the configured limits of size and time.

        Blocks. Raises ``UploadFailed`` with a stable code; nothing else means anything to the caller.
        """


Remembered = Sighting | ErrorCode
"""What is known of some bytes: how they were seen or, where they are no readable image, with which code they failed."""


class EmbeddingCache(Protocol):
    """
    What is known of bytes that were seen before. Called by the recall and the remember thread.
    """

    def recall(self, hashes: Sequence[ContentHash]) -> Mapping[ContentHash, Remembered] | None:
        """
        What is known of these bytes, in one round trip; unknown, damaged or foreign values are simply absent.

        None when the cache could not be asked. Blocks for at most the configured time-out; never raises.
        """

    def remember(self, found: Mapping[ContentHash, Remembered]) -> frozenset[ContentHash]:
        """
        Keep these for later, best effort, failures for a shorter time; which are not kept because they were forgotten.

        That is: by anybody who shares the cache, since they were last recalled here. Blocks for at most the configured
        time-out; never raises.
        """

    def close(self) -> None:
        """
        Release the connection.
        """


class Forgetter(Protocol):
    """
    A store that can forget bytes. Called by any thread; blocks.
    """

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Remove all that is kept of these bytes, whatever encoder saw them; how many values were removed.

        When it returns they are gone, also those that were gone before. Raises ``StoreUnavailable`` or
        ``ArchiveUnavailable`` when it cannot be known; asked again, it goes on.
        """


class SightingArchive(Protocol):
    """
    What was seen before, kept for replays. Every method blocks, and raises ``ArchiveUnavailable`` where it fails.

    A replay lets that end it: what it could not read, it must not judge otherwise. A live worker counts it, since what
    could not be kept costs a fetch in some later replay, and no verdict now.
    """

    def recall(self, hashes: Sequence[ContentHash]) -> Mapping[ContentHash, Sighting]:
        """
        What is kept of these bytes; unknown, damaged and foreign values are simply absent.
        """

    def keep(self, sightings: Mapping[ContentHash, Sighting]) -> None:
        """
        Keep these sightings, each in the place of an earlier one; but one without its shift does not hide one with it.
        """

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Remove all that is kept of these bytes, whatever encoder saw them; how many values were told to go.
        """

    def close(self) -> None:
        """
        Release what is held.
        """


@dataclass(frozen=True, slots=True)
class PastUpload:
    """
    What an earlier verdict said of an upload: who its bytes were, and which verdict that was.

    ``content_hash`` is None, and ``byte_length`` 0, where the bytes could not be had; ``verdict_id`` is that of the
    verdict which a new one supersedes, None where there is none.
    """

    content_hash: ContentHash | None
    byte_length: int
    verdict_id: UUID | None = None


class PastUploads(Protocol):
    """
    What is known of uploads from before this run. Called by many threads at once.
    """

    def of(self, upload: Upload) -> PastUpload | None:
        """
        What was said of this upload; None where nothing is known. Blocks; whatever it raises ends the run.
        """


class Encoder(Protocol):
    """
    The frozen vision encoder. Called by as many encoder threads at once as there are instances of it.
    """

    @property
    def fingerprint(self) -> EncoderFingerprint:
        """
        What makes this encoder this encoder.
        """

    def encode(self, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
        """
        Raw features, float32[n, dim], of n pictures of uint8[size, size, 3], in order.

        Blocks. The features of a picture do not depend on its companions beyond the stated tolerance. Out of device
        memory, the batch is halved until it fits. Raises ``UploadFailed`` (ENCODE_OUT_OF_MEMORY) when not even one
        picture fits; any other exception is a fault of the device and ends the process.
        """


class Bank(Protocol):
    """
    The labelled references. Read-only after it was opened; called by the judge thread.
    """

    @property
    def identity(self) -> BankIdentity:
        """
        Which references these are.
        """

    def nearest(self, embeddings: Sequence[Embedding], k: int) -> Sequence[Neighbourhood]:
        """
        For each embedding and for each label of the bank, its ``k`` nearest references (fewer where there are fewer).

        The adapter asks each label on its own, so that a small class is never crowded out by a large one.
        """


class Recorder(Protocol):
    """
    Counts what happens; never fails and never blocks. Called by any thread.
    """

    def count(self, name: MetricName, amount: float = 1, **labels: str) -> None:
        """
        Add to a counter.
        """

    def observe(self, name: MetricName, value: float, **labels: str) -> None:
        """
        Record one measured value.
        """


class PictureDecoder(Protocol):
    """
    Bytes to pixels. Called by many threads at once.
    """

    def decode(self, data: bytes, content_hash: ContentHash) -> DecodedPicture:
        """
        The views of the picture that its view spec asks for, and what was found in the bytes.

        ``content_hash`` is that of ``data``, for the facts. Blocks. Raises ``UploadFailed`` with a stable code.
        """
