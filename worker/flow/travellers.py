"""
What an upload is between two stages: each stage takes one of these and makes the next, in this order.
"""

from dataclasses import dataclass, field, replace
from typing import Final, Self
from uuid import UUID

from schemas.verdict import CacheStatus
from worker.domain import ContentHash, Provenance, Sighting, Upload
from worker.errors import UploadFailed
from worker.flow.lines import Slot
from worker.views import Picture

NOT_REACHED: Final = Provenance("not_reached")
"""Nothing is said of the cache by an upload that never came to it."""


@dataclass(frozen=True, slots=True)
class Unfetched:
    """
    A readable upload whose bytes must be fetched.

    ``expected`` are the bytes that an earlier verdict names and that were recalled in vain, with ``asked`` as the
    answer; both are None where there was nothing to recall. ``tries``: how often it was tried again in this process.
    """

    slot: Slot
    upload: Upload
    supersedes: UUID | None = None
    expected: ContentHash | None = None
    asked: CacheStatus | None = None
    tries: int = 0

    def again(self) -> Self:
        """
        The same upload, tried once more.
        """
        return replace(self, tries=self.tries + 1)


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

    ``provenance`` says where it is known from that its bytes are no readable image; else nothing was asked.
    """

    slot: Slot
    upload: Upload
    failure: UploadFailed
    passenger: Passenger | None = None
    supersedes: UUID | None = None
    provenance: Provenance = NOT_REACHED

    @classmethod
    def of(cls, passenger: Passenger, failure: UploadFailed, provenance: Provenance = NOT_REACHED) -> Self:
        """
        The failure of an upload whose bytes were had.
        """
        return cls(passenger.slot, passenger.upload, failure, passenger, passenger.supersedes, provenance)
