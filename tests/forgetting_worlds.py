"""
A Redis and an archive in memory that know of a post's bytes, and records of deletions.
"""

import json
from collections.abc import Mapping, Sequence

from tests.fakes_forgetting import InMemoryContents
from tests.sightings import a_hash
from worker.contents import ContentName
from worker.domain import ContentHash, Partition, RawEvent
from worker.errors import ArchiveUnavailable
from worker.operation.forgetting import Deletion, Forgotten, Stores, forget
from worker.telemetry.metrics import InMemoryRecorder

CAT, DOG = a_hash("cat"), a_hash("dog")

POST, OTHER = ContentName("acme", "post-1"), ContentName("acme", "post-2")

AT = Partition("deletions", 0)


class InFlight:
    """
    A ``worker.operation.listening.Memory`` that holds nothing, and in which others forgot these bytes.
    """

    def __init__(self, *elsewhere: ContentHash) -> None:
        self.elsewhere: Sequence[ContentHash] = elsewhere

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        It remembers nothing.
        """
        return 0

    def forgotten_elsewhere(self) -> Sequence[ContentHash]:
        """
        What others forgot, once.
        """
        told, self.elsewhere = self.elsewhere, ()
        return told


class Archive:
    """
    A ``Forgetter`` that is told what to do.
    """

    def __init__(self) -> None:
        self.down = False
        self.told: list[list[ContentHash]] = []

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Remembers what it was told to forget.
        """
        if self.down:
            raise ArchiveUnavailable("the disk is full")
        self.told.append(list(hashes))
        return len(hashes)


class World:
    """
    Redis and an archive in memory, with a cat's bytes noted of a post.
    """

    def __init__(self) -> None:
        self.redis = InMemoryContents(values={("e2", CAT): b"", ("e2", DOG): b""})
        self.archive = Archive()
        self.recorder = InMemoryRecorder()
        self.stores = Stores(self.redis, {"archive": self.archive, "redis": self.redis})
        self.redis.note([(POST, CAT)])

    def forget(self, *deletions: Deletion) -> Forgotten:
        """
        Forget these.
        """
        return forget(deletions, self.stores, self.recorder)

    def counted(self) -> dict[tuple[str, ...], float]:
        """
        What was counted as forgotten, by result and store.
        """
        return {
            tuple(value for _, value in sorted(series.labels)): count
            for series, count in self.recorder.counters().items()
            if series.name == "forgotten_total"
        }


def a_record(
    body: object, attributes: Mapping[str, str] | None = None, *, offset: int = 0, told_s: float | None = None
) -> RawEvent:
    """
    A record of the deletions topic, in binary mode where attributes are given; told then, in seconds since the epoch.
    """
    headers = tuple((f"ce_{name}", value.encode()) for name, value in (attributes or {}).items())
    value = json.dumps(body).encode()
    timestamp_ms = None if told_s is None else round(told_s * 1000)
    return RawEvent(AT, offset, key=None, value=value, headers=headers, timestamp_ms=timestamp_ms)


BODY = {"content_id": "post-1", "tenant_id": "acme", "sha256": [CAT], "reason": "of a later version"}
