"""
What an upload is between two stages: each stage takes one of these and makes the next, in this order.
"""

from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from schemas.verdict import CacheStatus
from worker.domain import ContentHash, Provenance, Sighting, Upload
from worker.errors import UploadFailed
from worker.flow.lines import Slot
from worker.views import Picture


@dataclass(frozen=True, slots=True)
class Unfetched:
    """
    A readable upload whose bytes must be fetched.

    ``expected`` are the bytes that an earlier verdict names and that were recalled in vain, with ``asked`` as the
    answer; both are None where there was nothing to recall.
    """

    slot: Slot
    upload: Upload
    supersedes: UUID | None = None
    expected: ContentHash | None = None
    asked: CacheStatus | None = None


@dataclass(frozen=True, slots=True)
class Passenger:
    """
    An upload whose bytes are known by name: all that travels on once they are decoded, or recalled.

    ``fetch_ms`` is None where nothing was fetched. ``turn`` is when the bytes were asked for, as ``ForgottenLately``
    counts: what is forgotten later must not be kept of them.
    """

    slot: Slot
    upload: Upload
    content_hash: ContentHash
    byte_length: int
    fetch_ms: float | None
    supersedes: UUID | None = None
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Fetched:
    """
    An upload with its bytes in hand. With ``asked`` these very bytes were recalled before they were fetched, in vain.
    """

    passenger: Passenger
    data: bytes = field(repr=False)
    asked: CacheStatus | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """
    A fetched upload of which no embedding is known; ``status`` says how the cache came to say so.
    """

    fetched: Fetched
    status: CacheStatus


@dataclass(frozen=True, slots=True)
class Decoded:
    """
    An upload whose picture waits for its micro-batch.
    """

    passenger: Passenger
    picture: Picture
    status: CacheStatus


@dataclass(frozen=True, slots=True)
class Known:
    """
    An upload whose picture has its place in the encoder's space.
    """

    passenger: Passenger
    sighting: Sighting
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Failed:
    """
    An upload that cannot be judged; ``passenger`` is None when not even its bytes could be had.
    """

    slot: Slot
    upload: Upload
    failure: UploadFailed
    passenger: Passenger | None = None
    supersedes: UUID | None = None

    @classmethod
    def of(cls, passenger: Passenger, failure: UploadFailed) -> Self:
        """
        The failure of an upload whose bytes were had.
        """
        return cls(passenger.slot, passenger.upload, failure, passenger, passenger.supersedes)
