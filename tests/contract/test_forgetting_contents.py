"""
What every index of contents that can forget must do alike: the one in memory, and the one over a real Redis.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Protocol
from uuid import uuid4

import pytest
from pydantic import SecretStr

from tests.fakes_forgetting import InMemoryContents
from tests.sightings import a_hash, a_scope, a_sighting
from worker.adapters.redis_cache import RedisCache
from worker.adapters.redis_contents import AT_ONCE, RedisContents
from worker.adapters.sighting_codec import SightingScope
from worker.adapters.system_clock import SystemClock
from worker.contents import ContentIndex, ContentName
from worker.dev.servers import RedisAt
from worker.domain import ContentHash
from worker.ports import Forgetter
from worker.settings.tree import RedisSettings
from worker.telemetry.metrics import InMemoryRecorder

CAT, DOG, EEL = a_hash("cat"), a_hash("dog"), a_hash("eel")
POST, OTHER = ContentName("acme", "post-1"), ContentName("acme", "post-2")
SCOPE = a_scope()
SCOPES = (SCOPE, a_scope("another encoder"), replace(SCOPE, views=a_hash("other views")))


class Contents(ContentIndex, Forgetter, Protocol):
    """
    Both ports, over one store.
    """


class Kept(Protocol):
    """
    A store with what workers of several encoders keep in it.
    """

    @property
    def contents(self) -> Contents:
        """
        The index that forgets.
        """

    def remember(self, content_hash: ContentHash, scopes: Sequence[SightingScope] = SCOPES) -> None:
        """
        Workers of these scopes saw the bytes.
        """

    def known(self, content_hash: ContentHash, scope: SightingScope = SCOPE) -> bool:
        """
        Whether a worker of this scope knows the bytes.
        """


class MemoryKept:
    """
    In dictionaries.
    """

    def __init__(self) -> None:
        self.contents = InMemoryContents()

    def remember(self, content_hash: ContentHash, scopes: Sequence[SightingScope] = SCOPES) -> None:
        """
        A value in each scope.
        """
        for scope in scopes:
            self.contents.values[repr(scope), content_hash] = b""

    def known(self, content_hash: ContentHash, scope: SightingScope = SCOPE) -> bool:
        """
        Whether there is a value.
        """
        return (repr(scope), content_hash) in self.contents.values


class RedisKept:
    """
    In a namespace of its own, through the caches that workers use.
    """

    def __init__(self, url: str, stack: ExitStack) -> None:
        # Time-outs of a busy test machine, not of a worker.
        self.settings = RedisSettings(
            url=SecretStr(url), namespace=uuid4().hex, connect_timeout_s=5, timeout_s=5, ttl_s=3600
        )
        self.contents = stack.enter_context(closing(RedisContents(self.settings, keep_s=7200)))
        self._caches = {
            scope: stack.enter_context(
                closing(RedisCache(self.settings, scope, recorder=InMemoryRecorder(), clock=SystemClock()))
            )
            for scope in SCOPES
        }

    def remember(self, content_hash: ContentHash, scopes: Sequence[SightingScope] = SCOPES) -> None:
        """
        A sighting in each scope.
        """
        for scope in scopes:
            self._caches[scope].remember({content_hash: a_sighting(content_hash)})

    def known(self, content_hash: ContentHash, scope: SightingScope = SCOPE) -> bool:
        """
        Whether it is recalled.
        """
        return bool(self._caches[scope].recall([content_hash]))


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.servers)])
def kept(request: pytest.FixtureRequest) -> Iterator[Kept]:
    """
    Each kind of store in turn, empty.
    """
    with ExitStack() as stack:
        if request.param == "memory":
            yield MemoryKept()
        else:
            at: RedisAt = request.getfixturevalue("redis_server")
            yield RedisKept(at.url, stack)


def test_a_content_has_the_bytes_that_were_noted(kept: Kept) -> None:
    """
    All revisions' bytes are found under one name, whichever call noted them, and twice is once.
    """
    kept.contents.note([(POST, CAT), (OTHER, EEL)])
    kept.contents.note([(POST, DOG), (POST, CAT)])

    assert kept.contents.bytes_of([POST, OTHER]) == {POST: {CAT, DOG}, OTHER: {EEL}}


@pytest.mark.parametrize(
    "stranger",
    [ContentName("other", "post-1"), ContentName(None, "post-1"), ContentName("acme", "post-1 "), OTHER],
)
def test_names_are_a_tenants_own(kept: Kept, stranger: ContentName) -> None:
    """
    Another tenant's content, or one of no tenant, is another content, and has no bytes that anybody noted.
    """
    kept.contents.note([(POST, CAT)])

    assert kept.contents.bytes_of([stranger]) == {stranger: frozenset()}


def test_a_name_that_was_let_go_is_still_found(kept: Kept) -> None:
    """
    Other workers hear of the same deletion later and find the bytes by the name; letting go twice does no harm.
    """
    kept.contents.note([(POST, CAT), (OTHER, DOG)])
    kept.contents.let_go([POST, OTHER])
    kept.contents.let_go([POST, ContentName(None, "unknown")])
    kept.contents.let_go([])

    assert kept.contents.bytes_of([POST, OTHER]) == {POST: {CAT}, OTHER: {DOG}}


def test_forgotten_bytes_are_gone_for_every_encoder(kept: Kept) -> None:
    """
    No worker of any encoder, views or rules knows them any more, and what others had stays.
    """
    kept.remember(CAT)
    kept.remember(DOG)
    removed = kept.contents.forget([CAT, EEL])

    assert removed > 0
    assert not any(kept.known(CAT, scope) for scope in SCOPES)
    assert all(kept.known(DOG, scope) for scope in SCOPES)
    assert kept.contents.forget([CAT, EEL]) == 0


def test_forgetting_nothing_removes_nothing(kept: Kept) -> None:
    """
    No hashes, no harm.
    """
    kept.remember(CAT)

    assert kept.contents.forget([]) == 0
    assert kept.known(CAT)


def test_forgotten_bytes_can_be_seen_again(kept: Kept) -> None:
    """
    Bytes that another content still has are remembered anew the next time they are seen.
    """
    kept.remember(CAT)
    kept.contents.forget([CAT])
    forgotten = not kept.known(CAT)  # a worker asks before it computes
    kept.remember(CAT, [SCOPE])

    assert forgotten
    assert kept.known(CAT)


def test_whoever_notes_a_content_that_is_gone_is_told(kept: Kept) -> None:
    """
    A mark is told to each who notes the content, and of no other content; the bytes are noted all the same.
    """
    before = kept.contents.note([(POST, CAT), (OTHER, DOG)])
    kept.contents.mark_gone([POST, ContentName(None, "post-2")])
    kept.contents.mark_gone([])
    after = [kept.contents.note([(POST, EEL), (OTHER, DOG)]), kept.contents.note([(OTHER, DOG), (POST, EEL)])]

    assert before == frozenset()
    assert after == [{POST}, {POST}]
    assert kept.contents.bytes_of([POST]) == {POST: {CAT, EEL}}


def test_more_than_one_round_trip_is_as_one(kept: Kept) -> None:
    """
    However many contents are asked for and bytes forgotten, each is.
    """
    names = [ContentName(None, f"post-{number}") for number in range(AT_ONCE + 7)]
    kept.contents.note([(name, a_hash(name.content_id)) for name in names])
    kept.remember(a_hash("post-0"), [SCOPE])
    kept.remember(a_hash(f"post-{AT_ONCE + 6}"), [SCOPE])
    found = kept.contents.bytes_of(names)
    kept.contents.forget([content_hash for hashes in found.values() for content_hash in hashes])

    assert [found[name] for name in names] == [{a_hash(name.content_id)} for name in names]
    assert not kept.known(a_hash("post-0"))
    assert not kept.known(a_hash(f"post-{AT_ONCE + 6}"))
