"""
What every cache of embeddings must do alike: the one in memory, and the one over a real Redis.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
from pydantic import SecretStr

from schemas.errors import ErrorCode
from tests.fakes_cache import InMemoryCache, Kept
from tests.sightings import DIM, SHIFT, a_hash, a_scope, a_sighting, same
from worker.adapters.redis_cache import RedisCache
from worker.adapters.sighting_codec import SightingScope
from worker.adapters.system_clock import SystemClock
from worker.dev.servers import RedisAt
from worker.flow.unreadable import LASTING
from worker.ports import EmbeddingCache
from worker.settings.tree import RedisSettings
from worker.telemetry.metrics import InMemoryRecorder
from worker.views import ViewSpec

Workers = Callable[[SightingScope], EmbeddingCache]
"""A cache for a worker of this scope; all of one test share what they keep."""

CAT, DOG, EEL = a_hash("cat"), a_hash("dog"), a_hash("eel")


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.servers)])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    """
    Each kind of cache in turn, empty.
    """
    caches: list[EmbeddingCache] = []
    kept: Kept = {}
    namespace = uuid4().hex

    def worker(scope: SightingScope) -> EmbeddingCache:
        cache: EmbeddingCache
        if request.param == "memory":
            cache = InMemoryCache(scope, kept=kept)
        else:
            at: RedisAt = request.getfixturevalue("redis_server")
            # Time-outs of a busy test machine, not of a worker.
            settings = RedisSettings(url=SecretStr(at.url), namespace=namespace, connect_timeout_s=5, timeout_s=5)
            cache = RedisCache(settings, scope, recorder=InMemoryRecorder(), clock=SystemClock())
        caches.append(cache)
        return cache

    yield worker
    for cache in caches:
        cache.close()


def test_what_is_unknown_is_absent(workers: Workers) -> None:
    """
    An empty cache knows nothing, and says so.
    """
    cache = workers(a_scope())

    assert cache.recall([CAT, DOG]) == {}
    assert cache.recall([]) == {}


def test_what_was_remembered_is_recalled_bit_for_bit(workers: Workers) -> None:
    """
    Of several hashes those that are known come back, each with its own sighting, equal to the last bit.
    """
    cache = workers(a_scope())
    sightings = {CAT: a_sighting(CAT), DOG: a_sighting(DOG)}
    cache.remember(sightings)
    recalled = cache.recall([EEL, DOG, CAT, DOG])

    assert recalled is not None
    assert recalled.keys() == {CAT, DOG}
    assert all(same(recalled[content_hash], sightings[content_hash]) for content_hash in sightings)


def test_workers_of_one_encoder_share(workers: Workers) -> None:
    """
    What one worker remembers another recalls.
    """
    workers(a_scope()).remember({CAT: a_sighting(CAT)})
    recalled = workers(a_scope()).recall([CAT])

    assert recalled is not None
    assert same(recalled[CAT], a_sighting(CAT))


@pytest.mark.parametrize(
    "other",
    [
        a_scope("another encoder"),
        a_scope("another encoder", dim=DIM * 2),
        SightingScope(a_scope().fingerprint_id, DIM, a_hash("other rules")),
        replace(a_scope(), views=ViewSpec(native_crops=1).sha256),
    ],
    ids=["encoder", "dimension", "decode rules", "views"],
)
def test_workers_of_other_encoders_do_not(workers: Workers, other: SightingScope) -> None:
    """
    Other encoders, views or rules of decoding never see each other's sightings, and do not harm them.
    """
    workers(a_scope()).remember({CAT: a_sighting(CAT)})
    foreign = workers(other)
    before = foreign.recall([CAT])
    foreign.remember({CAT: a_sighting(CAT, seed=1, dim=other.dim)})
    recalled = workers(a_scope()).recall([CAT])

    assert before == {}
    assert recalled is not None
    assert same(recalled[CAT], a_sighting(CAT))


def test_the_first_embedding_stays(workers: Workers) -> None:
    """
    When two workers embed the same bytes at once, both use the first embedding from then on.
    """
    one, other = workers(a_scope()), workers(a_scope())
    one.remember({CAT: a_sighting(CAT)})
    other.remember({CAT: a_sighting(CAT, seed=1)})
    recalled = other.recall([CAT])

    assert recalled is not None
    assert same(recalled[CAT], a_sighting(CAT))


def test_a_sighting_with_its_shift_takes_the_place_of_one_without(workers: Workers) -> None:
    """
    What one worker had no need or no memory to measure, another may add; nobody takes it away again.
    """
    one, other = workers(a_scope()), workers(a_scope())
    one.remember({CAT: a_sighting(CAT)})
    other.remember({CAT: a_sighting(CAT, shift=SHIFT)})
    one.remember({CAT: a_sighting(CAT, seed=1)})
    recalled = one.recall([CAT])

    assert recalled is not None
    assert same(recalled[CAT], a_sighting(CAT, shift=SHIFT))


def test_remembering_nothing_is_nothing(workers: Workers) -> None:
    """
    An empty set of sightings changes nothing and fails nothing.
    """
    cache = workers(a_scope())
    cache.remember({})

    assert cache.recall([CAT]) == {}


@pytest.mark.parametrize("code", sorted(LASTING))
def test_bytes_that_are_no_readable_image_are_remembered(workers: Workers, code: ErrorCode) -> None:
    """
    With their code, beside the sightings of others, and for workers of every encoder that decode alike.
    """
    workers(a_scope()).remember({CAT: code, DOG: a_sighting(DOG)})
    recalled = workers(a_scope("another encoder")).recall([CAT, DOG, EEL])
    here = workers(a_scope()).recall([CAT, DOG, EEL])

    assert {CAT: code} == recalled
    assert here is not None
    assert [CAT, DOG] == sorted(here, key=[CAT, DOG].index)
    assert code is here[CAT]
    assert same(here[DOG], a_sighting(DOG))


def test_another_decoder_tries_such_bytes_anew(workers: Workers) -> None:
    """
    What one version of the decoders, or one list of formats, cannot read another may.
    """
    workers(a_scope()).remember({CAT: ErrorCode.DECODE_FAILED})

    assert {} == workers(replace(a_scope(), decoders=a_hash("newer decoders"))).recall([CAT])
