"""
Uploads of bytes that were seen before: many different contents of about 20 KB, and their sightings in Redis.

There are more of them than a worker remembers by itself, so that it is Redis that is asked. The sightings are drawn and
not encoded; what a verdict says does not matter here, what it costs does.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.adapters.redis_cache import RedisCache
from worker.adapters.system_clock import SystemClock
from worker.app import scope_of
from worker.bench.banks import random_directions
from worker.bench.corpus import KINDS, Kind, with_comment, write_variants
from worker.bench.subjects import Subject
from worker.domain import ContentHash, Embedding, Sighting
from worker.errors import CannotStart
from worker.telemetry.metrics import InMemoryRecorder

_AT_ONCE: Final = 128
_SEED: Final = 11


@dataclass(frozen=True, slots=True)
class Content:
    """
    One content: its file below the file root, and who its bytes are.
    """

    path: str
    content_hash: ContentHash
    byte_length: int


def write_contents(root: Path, count: int, kind: Kind = KINDS["20kb"]) -> list[Content]:
    """
    So many different files in the folder ``cached`` below the file root.
    """
    found = []
    for name in write_variants(root / "cached", count, kind):
        # In other bytes than new pictures of the same kind and number have.
        data = with_comment((root / "cached" / name).read_bytes(), b"known")
        (root / "cached" / name).write_bytes(data)
        found.append(Content(f"cached/{name}", ContentHash(hashlib.sha256(data).hexdigest()), len(data)))
    return found


def remember_all(contents: Sequence[Content], subject: Subject, *, like: Sighting) -> None:
    """
    Write a sighting of each content to the subject's Redis, with directions drawn from a seed; the rest is ``like``'s.

    Raises ``CannotStart`` where Redis does not take them: the uploads would not be cached ones.
    """
    settings, instruments = subject.settings, subject.instruments
    rows = random_directions(len(contents), instruments.encoder.fingerprint.dim, seed=_SEED)
    sightings = {
        one.content_hash: _drawn(one, Embedding.from_features(row.astype("float32")), like)
        for one, row in zip(contents, rows, strict=True)
    }
    names = list(sightings)
    scope = scope_of(settings, instruments)
    with closing(RedisCache(settings.redis, scope, recorder=InMemoryRecorder(), clock=SystemClock())) as cache:
        for start in range(0, len(names), _AT_ONCE):
            cache.remember({name: sightings[name] for name in names[start : start + _AT_ONCE]})
        known = cache.recall(names[-_AT_ONCE:]) or {}
    if len(known) < len(names[-_AT_ONCE:]):
        raise CannotStart("Redis did not keep what the benchmark of cached uploads wrote; look at its log and memory")


def again_and_again(contents: Sequence[Content]) -> Iterator[str]:
    """
    The paths of the contents in order, without end.
    """
    return itertools.cycle([one.path for one in contents])


def _drawn(content: Content, embedding: Embedding, like: Sighting) -> Sighting:
    facts = like.facts.model_copy(update={"sha256": content.content_hash, "byte_length": content.byte_length})
    return Sighting(embedding=embedding, facts=facts, norm=like.norm, native=like.native, realism=like.realism)
