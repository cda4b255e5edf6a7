"""
Which bytes a content had, and forgetting bytes, in Redis. Recalling and remembering them lives in ``redis_cache.py``.

A set per content, ``touchstone:{namespace}:u1:{tenant}:{sha256 of the content id}``, holds the hashes of its bytes. The
id does not stand there in the clear, which keeps it from whoever looks through keys; whoever guesses it can find it.
That a content is gone is marked under ``g2`` in the same way, that bytes were forgotten under ``g1`` and their hash.
What no worker writes in any of these places is removed where it is found, and counted: it never stops a deletion.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Final, TypeVar
from uuid import uuid4

import structlog
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.adapters.redis_cache import longest_ttl_s, mark_key
from worker.adapters.redis_client import open_redis
from worker.adapters.redis_reading import all_good, asked, members_in, numbers, of_wrong_type, page_in
from worker.adapters.redis_wire import AnswerTooLong
from worker.adapters.sighting_codec import read_scope_name, scoped_key, scopes_key
from worker.contents import ContentName
from worker.domain import ContentHash
from worker.errors import StoreUnavailable
from worker.settings.tree import RedisSettings

log = structlog.get_logger(__name__)

AT_ONCE: Final = 500
"""Keys removed, or contents asked for, in one round trip."""

LINGER_S: Final = 24 * 3600
"""How long a name that was let go is still known: for workers that hear of its deletion later than others."""

MARKED_S: Final = 3600
"""How long bytes are marked as forgotten: longer than any upload takes from being recalled to being remembered."""

MEMBERS_LIMIT: Final = 100_000
"""More than may be read of one set, and than a content has revisions: whoever wrote so many is no worker."""

PATIENCE_S: Final = 5.0
"""Time-outs: nobody waits for a verdict here."""

_HASH: Final = re.compile(rb"[0-9a-f]{64}")
_ADVICE: Final = "no worker writes such entries: see who else may write to this Redis (ACL LOG, ACL LIST)"
_T = TypeVar("_T")
_Key = str | bytes


class RedisContents:
    """
    Implements ``worker.contents.ContentIndex`` and ``worker.ports.Forgetter``. Connects when first asked.

    Names are kept for ``keep_s`` after a content was last seen. The keys of some bytes are found through the names of
    all scopes that were ever written to, a handful in a set of its own: no set per image, which would take as much
    memory as the facts, and no walk over all keys for each deletion. Where there are none, since the set was
    lost or held what no worker writes, there is such a walk, which names again what it meets; until one has come to its
    end, each call begins one. ``scan`` walks all the same, once for each call: it also finds keys of earlier releases
    of Touchstone, and those whose scope alone Redis has lost. Without ``marks`` it
    tells nobody what it forgets: for what others have marked already. One thread at a time.
    """

    def __init__(self, settings: RedisSettings, *, keep_s: int, scan: bool = False, marks: bool = True) -> None:
        patient = {"connect_timeout_s": PATIENCE_S, "timeout_s": PATIENCE_S}
        self._namespace = settings.namespace
        self._ttl_s = longest_ttl_s(max(settings.ttl_s, keep_s))
        self._scan = scan
        self._marks = marks
        self._redis: Redis = open_redis(settings.model_copy(update=patient))
        self._damaged = 0
        self._scopes_lost = False

    def note(self, found: Sequence[tuple[ContentName, ContentHash]]) -> frozenset[ContentName]:
        """
        Add the bytes to what these contents had, in one round trip, or two where any is gone; which of them are.

        Raises ``StoreUnavailable``.
        """
        answers = self._noted(found)
        pairs = zip(found, answers[0:-1:2], strict=True)
        if in_the_way := {self._key(content) for (content, _), added in pairs if of_wrong_type(added)}:
            self._take_out(list(in_the_way))
            answers = self._noted(found)
        with unavailable():
            *_, gone = numbers(answers, 2 * len(found) + 1)
        return self._gone_of([content for content, _ in found]) if gone else frozenset()

    def _gone_of(self, contents: Iterable[ContentName]) -> frozenset[ContentName]:
        once = list(dict.fromkeys(contents))
        pipeline = self._redis.pipeline(transaction=False)
        for content in once:
            pipeline.exists(self._gone_key(content))
        with unavailable():
            answers = asked(lambda: pipeline.execute(raise_on_error=False))
            gone = numbers(answers, len(once))
        return frozenset(content for content, is_gone in zip(once, gone, strict=True) if is_gone)

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
            sets = self._sets([self._key(content) for content in some])
            found |= {content: self._hashes(self._key(content), sets[self._key(content)]) for content in some}
        return found

    def let_go(self, contents: Sequence[ContentName]) -> None:
        """
        Have the names expire after ``LINGER_S``. Raises ``StoreUnavailable``.
        """
        for some in _batched(dict.fromkeys(contents)):
            pipeline = self._redis.pipeline(transaction=False)
            for content in some:
                pipeline.expire(self._key(content), min(LINGER_S, self._ttl_s))
            self._execute(pipeline)

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
        scopes = self._scopes()
        removed = self._remove(
            scoped_key(scope, content_hash, namespace=self._namespace)
            for content_hash in dict.fromkeys(hashes)
            for scope in scopes
        )
        return removed + (self._remove_found(frozenset(hashes)) if self._scan or self._scopes_lost else 0)

    def damaged(self) -> int:
        """
        How much was found since the last call that no worker writes, and was taken out.
        """
        damaged, self._damaged = self._damaged, 0
        return damaged

    def close(self) -> None:
        """
        Release the connections.
        """
        self._redis.close()

    @property
    def _at_scopes(self) -> str:
        return scopes_key(namespace=self._namespace)

    def _noted(self, found: Sequence[tuple[ContentName, ContentHash]]) -> list[object]:
        pipeline = self._redis.pipeline(transaction=False)
        for content, content_hash in found:
            key = self._key(content)
            pipeline.sadd(key, content_hash)
            pipeline.expire(key, self._ttl_s)
        # Behind the notes: see ContentIndex.mark_gone. Of all together, since hardly ever one of them is gone.
        pipeline.exists(*dict.fromkeys(self._gone_key(content) for content, _ in found))
        with unavailable():
            return asked(lambda: pipeline.execute(raise_on_error=False))

    def _scopes(self) -> list[str]:
        """
        The names of all scopes; none where they lay in no set, or in one too large to read.

        That they were lost is kept in mind: workers write only their own names anew. Raises ``StoreUnavailable``.
        """
        members = self._sets([self._at_scopes])[self._at_scopes]
        names = {member: read_scope_name(member) for member in members}
        self._take_out_of(self._at_scopes, [member for member, name in names.items() if name is None])
        found = sorted(name for name in names.values() if name is not None)
        self._scopes_lost = self._scopes_lost or not found
        return found

    def _hashes(self, key: str, members: Sequence[bytes]) -> frozenset[ContentHash]:
        self._take_out_of(key, [member for member in members if not _HASH.fullmatch(member)])
        return frozenset(ContentHash(member.decode()) for member in members if _HASH.fullmatch(member))

    def _sets(self, keys: Sequence[str]) -> dict[str, Sequence[bytes]]:
        """
        The members of these sets. What is no set, or is too large to be read on its own, is removed, and empty.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.smembers(key)
        with unavailable():
            try:
                answers = asked(lambda: pipeline.execute(raise_on_error=False))
            except AnswerTooLong:
                if len(keys) == 1:
                    self._take_out(keys)
                    return {keys[0]: ()}
                return {key: members for one in keys for key, members in self._sets([one]).items()}
            except RedisTimeoutError:
                self._take_out(self._too_large(keys))
                raise
            no_sets = [key for key, answer in zip(keys, answers, strict=True) if of_wrong_type(answer)]
            self._take_out(no_sets)
            sets = all_good([[] if of_wrong_type(answer) else answer for answer in answers], len(keys))
            return {key: members_in(answer) for key, answer in zip(keys, sets, strict=True)}

    def _too_large(self, keys: Sequence[str]) -> Sequence[str]:
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.scard(key)
        answers = asked(lambda: pipeline.execute(raise_on_error=False))
        sizes = numbers([0 if of_wrong_type(answer) else answer for answer in answers], len(keys))
        return [key for key, size in zip(keys, sizes, strict=True) if size > MEMBERS_LIMIT]

    def _take_out(self, keys: Sequence[str]) -> None:
        """
        Remove what lies in the place of what a worker writes.
        """
        if keys:
            self._damaged += len(keys)
            log.warning("redis.entries_refused", keys=len(keys), advice=_ADVICE)
            self._at_best_effort(lambda: self._redis.unlink(*keys))

    def _take_out_of(self, key: str, members: Sequence[bytes]) -> None:
        if members:
            self._damaged += len(members)
            log.warning("redis.entries_refused", members=len(members), advice=_ADVICE)
            for some in _batched(members):
                self._at_best_effort(partial(self._redis.srem, key, *some))

    def _at_best_effort(self, ask: Callable[[], object]) -> None:
        # What is there is passed over in any case, also by a user who may not remove it.
        with suppress(RedisError):
            asked(ask)

    def _remove_found(self, hashes: frozenset[str]) -> int:
        """
        Walk over all keys, and remove those that end with one of these hashes; the scopes are named again, where lost.
        """
        wanted = {content_hash.encode() for content_hash in hashes}
        scopes: set[str] = set()
        removed, cursor = 0, 0
        while True:
            with unavailable():
                # A namespace has no character that means something in a pattern.
                pattern = f"touchstone:{self._namespace}:[ef]*"
                answer: object = asked(partial(self._redis.scan, cursor, match=pattern, count=1000))
                cursor, keys = page_in(answer)
            removed += self._remove(key for key in keys if key.rpartition(b":")[2] in wanted)
            found = (read_scope_name(key.rpartition(b":")[0].split(b":", 2)[-1]) for key in keys)
            scopes.update(islice((name for name in found if name is not None), max(0, AT_ONCE - len(scopes))))
            if cursor == 0:
                self._name_again(scopes)
                return removed

    def _name_again(self, scopes: Iterable[str]) -> None:
        if self._scopes_lost and (names := sorted(scopes)):
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.sadd(self._at_scopes, *names)
            pipeline.expire(self._at_scopes, self._ttl_s)
            self._at_best_effort(pipeline.execute)
        self._scopes_lost = False

    def _set(self, values: Mapping[str, bytes], *, ttl_s: int) -> None:
        for some in _batched(values.items()):
            pipeline = self._redis.pipeline(transaction=False)
            for key, value in some:
                pipeline.set(key, value, ex=ttl_s)
            self._execute(pipeline)

    def _execute(self, pipeline: Pipeline) -> None:
        number = len(pipeline)
        with unavailable():
            all_good(asked(lambda: pipeline.execute(raise_on_error=False)), number)

    def _remove(self, keys: Iterable[_Key]) -> int:
        removed = 0
        for some in _batched(keys):
            with unavailable():
                removed += sum(numbers([asked(partial(self._redis.unlink, *some))], 1))
        return removed

    def _key(self, content: ContentName) -> str:
        return self._named("u1", content)

    def _gone_key(self, content: ContentName) -> str:
        return self._named("g2", content)

    def _named(self, kind: str, content: ContentName) -> str:
        hashed = sha256(content.content_id.encode()).hexdigest()
        return f"touchstone:{self._namespace}:{kind}:{content.tenant_id or ''}:{hashed}"


def _batched(items: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(items)
    while some := list(islice(rest, AT_ONCE)):
        yield some


@contextmanager
def unavailable() -> Iterator[None]:
    """
    Whatever Redis does inside that it should not is ``StoreUnavailable``.
    """
    try:
        yield
    except RedisError as fault:
        # Its text may hold the address, and the address a password.
        raise StoreUnavailable(
            f"Redis did not answer as it should ({type(fault).__name__}); nothing is known to be removed there. "
            "Check redis.url and that it is up, then forget again."
        ) from fault
