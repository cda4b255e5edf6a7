"""
Which bytes a content had, and forgetting bytes, in Redis. Recalling and remembering them lives in ``redis_cache.py``.

A set per content, ``touchstone:{namespace}:u1:{tenant}:{sha256 of the content id}``, holds the hashes of its bytes. The
id does not stand there in the clear, which keeps it from whoever looks through keys; whoever guesses it can find it.
That a content is gone is marked under ``g2`` in the same way, that bytes were forgotten under ``g1`` and their hash.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Final, TypeVar
from uuid import uuid4

from redis import Redis
from redis.exceptions import RedisError

from worker.adapters.redis_cache import longest_ttl_s, mark_key
from worker.adapters.redis_client import open_redis
from worker.adapters.sighting_codec import scoped_key, scopes_key
from worker.contents import ContentName
from worker.domain import ContentHash
from worker.errors import StoreUnavailable
from worker.settings.tree import RedisSettings

AT_ONCE: Final = 500
"""Keys removed, or contents asked for, in one round trip."""

LINGER_S: Final = 24 * 3600
"""How long a name that was let go is still known: for workers that hear of its deletion later than others."""

MARKED_S: Final = 3600
"""How long bytes are marked as forgotten: longer than any upload takes from being recalled to being remembered."""

PATIENCE_S: Final = 5.0
"""Time-outs: nobody waits for a verdict here."""

_HASH: Final = re.compile(rb"[0-9a-f]{64}")
_T = TypeVar("_T")
_Key = str | bytes


class RedisContents:
    """
    Implements ``worker.contents.ContentIndex`` and ``worker.ports.Forgetter``. Connects when first asked.

    Names are kept for ``keep_s`` after a content was last seen. The keys of some bytes are found through the names of
    all scopes that were ever written to, a handful in a set of its own: no set per image, which would take as much
    memory as the facts, and no walk over all keys for each deletion. ``scan`` walks all the same, once for each call:
    it also finds keys of earlier releases of Touchstone, and those whose scope Redis has evicted. Without ``marks`` it
    tells nobody what it forgets: for what others have marked already.
    """

    def __init__(self, settings: RedisSettings, *, keep_s: int, scan: bool = False, marks: bool = True) -> None:
        patient = {"connect_timeout_s": PATIENCE_S, "timeout_s": PATIENCE_S}
        self._namespace = settings.namespace
        self._ttl_s = longest_ttl_s(max(settings.ttl_s, keep_s))
        self._scan = scan
        self._marks = marks
        self._redis: Redis = open_redis(settings.model_copy(update=patient))

    def note(self, found: Sequence[tuple[ContentName, ContentHash]]) -> frozenset[ContentName]:
        """
        Add the bytes to what these contents had, in one round trip; which of them are gone.

        Raises ``StoreUnavailable``.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for content, content_hash in found:
            key = self._key(content)
            pipeline.sadd(key, content_hash)
            pipeline.expire(key, self._ttl_s)
            pipeline.exists(self._gone_key(content))  # behind the note: see ContentIndex.mark_gone
        answers = _asked(pipeline.execute)[2::3]
        return frozenset(content for (content, _), is_gone in zip(found, answers, strict=True) if is_gone)

    def mark_gone(self, contents: Sequence[ContentName]) -> None:
        """
        Mark these contents for ``LINGER_S``. Raises ``StoreUnavailable``.
        """
        if self._marks:
            self._set({self._gone_key(content): b"" for content in contents}, ttl_s=LINGER_S)

    def bytes_of(self, contents: Sequence[ContentName]) -> Mapping[ContentName, frozenset[ContentHash]]:
        """
        What was noted of each of these contents. Raises ``StoreUnavailable``.
        """
        found: dict[ContentName, frozenset[ContentHash]] = {}
        for some in _batched(dict.fromkeys(contents)):
            pipeline = self._redis.pipeline(transaction=False)
            for content in some:
                pipeline.smembers(self._key(content))
            answers = _asked(pipeline.execute)
            found |= {content: _hashes(members) for content, members in zip(some, answers, strict=True)}
        return found

    def let_go(self, contents: Sequence[ContentName]) -> None:
        """
        Have the names expire after ``LINGER_S``. Raises ``StoreUnavailable``.
        """
        for some in _batched(dict.fromkeys(contents)):
            pipeline = self._redis.pipeline(transaction=False)
            for content in some:
                pipeline.expire(self._key(content), min(LINGER_S, self._ttl_s))
            _asked(pipeline.execute)

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Remove the values of these bytes in all scopes of the namespace; how many there were.

        They are marked before, so that workers which have them in flight do not bring them back. Raises
        ``StoreUnavailable``; what was removed before stays removed.
        """
        if not hashes:
            return 0
        if self._marks:
            mark = uuid4().bytes
            self._set({mark_key(one, namespace=self._namespace): mark for one in hashes}, ttl_s=MARKED_S)
        scopes = sorted(name.decode() for name in _asked(lambda: _members(self._redis, self._at_scopes)))
        removed = self._remove(
            scoped_key(scope, content_hash, namespace=self._namespace)
            for content_hash in dict.fromkeys(hashes)
            for scope in scopes
        )
        return removed + (self._remove_found(frozenset(hashes)) if self._scan else 0)

    def close(self) -> None:
        """
        Release the connections.
        """
        self._redis.close()

    @property
    def _at_scopes(self) -> str:
        return scopes_key(namespace=self._namespace)

    def _remove_found(self, hashes: frozenset[str]) -> int:
        # A namespace has no character that means something in a pattern.
        walk = self._redis.scan_iter(match=f"touchstone:{self._namespace}:[ef]*", count=1000)
        keys = _asked(lambda: [key for key in walk if key.rpartition(b":")[2].decode() in hashes])
        return self._remove(keys)

    def _set(self, values: Mapping[str, bytes], *, ttl_s: int) -> None:
        for some in _batched(values.items()):
            pipeline = self._redis.pipeline(transaction=False)
            for key, value in some:
                pipeline.set(key, value, ex=ttl_s)
            _asked(pipeline.execute)

    def _remove(self, keys: Iterable[_Key]) -> int:
        removed = 0
        for some in _batched(keys):
            removed += _asked(partial(_unlink, self._redis, some))
        return removed

    def _key(self, content: ContentName) -> str:
        return self._named("u1", content)

    def _gone_key(self, content: ContentName) -> str:
        return self._named("g2", content)

    def _named(self, kind: str, content: ContentName) -> str:
        hashed = sha256(content.content_id.encode()).hexdigest()
        return f"touchstone:{self._namespace}:{kind}:{content.tenant_id or ''}:{hashed}"


def _unlink(redis: Redis, keys: Sequence[_Key]) -> int:
    removed: object = redis.unlink(*keys)  # whatever the server sends
    return removed if isinstance(removed, int) else 0


def _batched(items: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(items)
    while some := list(islice(rest, AT_ONCE)):
        yield some


def _members(redis: Redis, key: str) -> set[bytes]:
    members: object = redis.smembers(key)  # whatever the server sends
    return {member for member in members if isinstance(member, bytes)} if isinstance(members, set) else set()


def _hashes(members: object) -> frozenset[ContentHash]:
    found = members if isinstance(members, set) else ()
    return frozenset(ContentHash(one.decode()) for one in found if isinstance(one, bytes) and _HASH.fullmatch(one))


def _asked(ask: Callable[[], _T]) -> _T:
    try:
        return ask()
    except (RedisError, OSError) as fault:
        # Its text may hold the address, and the address a password.
        raise StoreUnavailable(
            f"Redis did not answer as it should ({type(fault).__name__}); nothing is known to be removed there. "
            "Check redis.url and that it is up, then forget again."
        ) from fault
