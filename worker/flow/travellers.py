"""
What an upload is between two stages: each stage takes one of these and makes the next, in this order.
"""

from dataclasses import dataclass, field

from schemas.verdict import CacheStatus
from worker.domain import ContentHash, Provenance, Sighting, Upload
from worker.errors import UploadFailed
from worker.flow.lines import Slot
from worker.views import Picture


@dataclass(frozen=True, slots=True)
class Passenger:
    """
    A fetched upload without its bytes: all that travels on once they are decoded, or known already.
    """

    slot: Slot
    upload: Upload
    content_hash: ContentHash
    byte_length: int
    fetch_ms: float


@dataclass(frozen=True, slots=True)
class Fetched:
    """
    An upload with its bytes in hand.
    """

    passenger: Passenger
    data: bytes = field(repr=False)


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
