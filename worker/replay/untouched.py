"""
What a replay leaves alone: the live cache, which it only reads, and the image store, where it is told not to fetch.
"""

from collections.abc import Mapping, Sequence

from schemas.errors import ErrorCode
from schemas.uploaded import UploadedImage
from worker.domain import ContentHash
from worker.errors import UploadFailed
from worker.ports import EmbeddingCache, Remembered


class ReadOnlyCache:
    """
    Implements ``worker.ports.EmbeddingCache`` over another one, and remembers nothing.
    """

    def __init__(self, cache: EmbeddingCache) -> None:
        self._cache = cache

    def recall(self, hashes: Sequence[ContentHash]) -> Mapping[ContentHash, Remembered] | None:
        """
        What the other knows.
        """
        return self._cache.recall(hashes)

    def remember(self, found: Mapping[ContentHash, Remembered]) -> frozenset[ContentHash]:  # noqa: ARG002 - the port's
        """
        Nothing is written, so nothing can have been forgotten meanwhile.
        """
        return frozenset()

    def close(self) -> None:
        """
        Close the other.
        """
        self._cache.close()


class NoStore:
    """
    Implements ``worker.ports.ImageStore`` without any image: each upload that needs one fails.
    """

    def read(self, image: UploadedImage) -> bytes:  # noqa: ARG002 - the port's signature
        """
        Raises ``UploadFailed`` (EMBEDDING_UNKNOWN).
        """
        raise UploadFailed(
            ErrorCode.EMBEDDING_UNKNOWN,
            "no embedding of this upload is kept, and this replay does not fetch; replay without --no-fetch",
        )

    def close(self) -> None:
        """
        Nothing is held.
        """
