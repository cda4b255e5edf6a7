"""
Redis with TLS, with a user who may do little, and with values that are signed, on a real server.

Its build has no TLS, so that the handshake is made by ``tls_relay.py`` in front of it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis
from redis.exceptions import RedisError

from schemas.errors import ErrorCode
from tests.platform_side import inline, small_jpeg, upload_event
from tests.secured_rig import Files, certified, written
from tests.security_text import code_block
from tests.sightings import a_hash, a_sighting, same
from tests.tls_relay import tls_in_front_of
from tests.watched_cache import Watched
from tests.worker_rig import WorkerRig
from worker.adapters.redis_contents import RedisContents
from worker.adapters.redis_wire import VALUE_LIMIT_BYTES
from worker.adapters.sighting_codec import scopes_key
from worker.contents import ContentName
from worker.dev.redis_server import EmbeddedRedis
from worker.dev.servers import RedisAt
from worker.domain import ContentHash, Sighting
from worker.errors import StoreUnavailable

pytestmark = [pytest.mark.servers]

CAT, DOG, EEL = a_hash("cat"), a_hash("dog"), a_hash("eel")
PASSWORD = "Pa55word-of-the-cache"  # noqa: S105 - a server of this test's own
KEYS = ("old" * 12, "new" * 12)
CONTENT = ContentName("tenant", "post-1")


@pytest.fixture(scope="module")
def own_redis() -> Iterator[EmbeddedRedis]:
    """
    A Redis that has users of its own.
    """
    with EmbeddedRedis() as redis:
        yield redis


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """
    Our authority, and a certificate that it signed.
    """
    return written(certified(), tmp_path_factory.mktemp("ours"))


def port_of(redis: EmbeddedRedis) -> int:
    """
    Where it listens, without TLS.
    """
    return int(redis.url.rpartition("/")[0].rpartition(":")[2])


def documented_user(namespace: str) -> list[str]:
    """
    The words of the user that SECURITY.md gives, for this namespace.
    """
    line = code_block("Redis: what a worker's user needs").strip()
    words = line.replace("NAMESPACE", namespace).replace("PASSWORD", PASSWORD).split()
    assert ["ACL", "SETUSER", "touchstone"] == words[:3]
    return words[3:]


def as_user(redis: EmbeddedRedis, rules: list[str]) -> str:
    """
    The address of a user who may do just this, in a database that is not the first.
    """
    with closing(Redis.from_url(redis.url)) as root:
        root.execute_command("ACL", "SETUSER", "touchstone", "reset", *rules)  # type: ignore[no-untyped-call]  # redis-py
    return f"redis://touchstone:{PASSWORD}@127.0.0.1:{port_of(redis)}/1"


def found_alike(found: Mapping[ContentHash, Sighting | ErrorCode] | None, *names: ContentHash) -> bool:
    """
    Whether just these were found, each as it was remembered.
    """
    if found is None or found.keys() != set(names):
        return False
    return all(isinstance(one, Sighting) and same(one, a_sighting(name)) for name, one in found.items())


def work(url: str, namespace: str, root: Redis) -> list[str]:
    """
    All that a worker does in Redis, where ``root`` has spoilt something; what was refused.
    """
    with closing(Watched(url, namespace=namespace, breaker_failures=100)) as watched:
        contents = RedisContents(watched.settings, keep_s=600)
        # Unknown, then known and read back, then damaged, which removes it.
        watched.cache.recall([CAT])
        watched.remember(CAT)
        refused = [] if found_alike(watched.cache.recall([CAT]), CAT) else ["recall"]
        scopes = scopes_key(namespace=namespace)
        root.setrange(watched.keys(CAT)[0], VALUE_LIMIT_BYTES, b"x")
        root.sadd(scopes, b"\xff")
        watched.cache.recall([CAT])
        refused += ["repair"] if root.exists(watched.keys(CAT)[0]) else []
        steps: dict[str, Callable[[], object]] = {
            "note": lambda: contents.note([(CONTENT, CAT)]),
            "mark_gone": lambda: contents.mark_gone([CONTENT]),
            "bytes_of": lambda: contents.bytes_of([CONTENT]),
            "let_go": lambda: contents.let_go([CONTENT]),
            "forget": lambda: contents.forget([CAT]),
            # Asked only of sets that are not read in time.
            "sizes": lambda: contents._too_large([scopes]),
        }
        for name, step in steps.items():
            try:
                step()
            except (StoreUnavailable, RedisError):
                refused.append(name)
        members: object = root.smembers(scopes)
        refused += ["clearing"] if isinstance(members, set) and b"\xff" in members else []
        root.delete(scopes)
        contents.close()
        return refused


def test_exactly_the_documented_user_suffices(own_redis: EmbeddedRedis) -> None:
    """
    With all of its commands the work is done; with any one missing a part of it is not.
    """
    namespace = uuid4().hex
    rules = documented_user(namespace)
    # PING spares a refusal in Redis's own log, and is asked by `touchstone doctor`.
    commands = [word for word in rules if word.startswith("+") and word != "+ping"]
    with closing(Redis.from_url(own_redis.url.rpartition("/")[0] + "/1")) as root:
        whole = work(as_user(own_redis, rules), namespace, root)
        without = {
            one: work(as_user(own_redis, [word for word in rules if word != one]), namespace, root) for one in commands
        }

    assert [] == whole
    assert 11 == len(commands)
    assert [] == [command for command, refused in without.items() if not refused]


def test_a_foreign_key_is_refused_and_costs_only_hits(own_redis: EmbeddedRedis) -> None:
    """
    Beyond its namespace the user reads and writes nothing; a worker that tries goes on without a cache.
    """
    url = as_user(own_redis, documented_user(uuid4().hex))
    with closing(Watched(url)) as elsewhere:
        recalled = elsewhere.cache.recall([CAT])
        kept = elsewhere.cache.remember({CAT: a_sighting(CAT)})
        seen = [elsewhere.requests(), elsewhere.writes()]
    with closing(Redis.from_url(own_redis.url)) as root:
        lies_there: object = root.exists(*elsewhere.keys(CAT))

    assert recalled is None
    assert frozenset() == kept
    assert [{"error": 1}] * 2 == seen
    assert 0 == lies_there


def test_the_user_may_do_nothing_else(own_redis: EmbeddedRedis) -> None:
    """
    Neither list, configure, flush nor subscribe.
    """
    url = as_user(own_redis, documented_user(uuid4().hex))
    with closing(Redis.from_url(url)) as client:
        for command in ("KEYS *", "CONFIG GET *", "FLUSHALL", "SCAN 0", "ACL LIST", "EVAL 1 0", "GET touchstone:x"):
            with pytest.raises(Exception, match=r"(?i)no permission|noperm"):
                client.execute_command(*command.split())  # type: ignore[no-untyped-call]  # redis-py


def test_a_wrong_password_costs_only_hits(own_redis: EmbeddedRedis) -> None:
    """
    It is counted, and nothing is raised that could show the password.
    """
    url = as_user(own_redis, documented_user(uuid4().hex)).replace(PASSWORD, "wrong")
    with closing(Watched(url)) as watched:
        recalled = watched.cache.recall([CAT])

        assert recalled is None
        assert {"error": 1} == watched.requests()


@pytest.mark.parametrize("asks", [False, True], ids=["server's", "both"])
def test_tls_with_certificates(own_redis: EmbeddedRedis, files: Files, asks: bool) -> None:
    """
    With our authority, and our own certificate where one is asked for, the cache works as in the clear.
    """
    own: dict[str, Any] = {"ssl_certfile": files.certfile, "ssl_keyfile": files.keyfile} if asks else {}
    with tls_in_front_of(port_of(own_redis), asks_for_certificate=asks) as port:
        address = f"rediss://127.0.0.1:{port}/0"
        with ExitStack() as stack:
            known = stack.enter_context(closing(Watched(own_redis.url)))
            own |= {"namespace": known.settings.namespace, "ssl_cafile": files.cafile}
            watched = stack.enter_context(closing(Watched(address, **own)))
            watched.remember(CAT)
            over_tls, in_the_clear = watched.cache.recall([CAT]), known.cache.recall([CAT])

    assert found_alike(over_tls, CAT)
    assert found_alike(in_the_clear, CAT)


@pytest.mark.parametrize("fault", ["unknown authority", "other name", "no certificate"])
def test_a_handshake_that_fails_costs_only_hits(own_redis: EmbeddedRedis, files: Files, fault: str) -> None:
    """
    A certificate that nobody vouches for, or for another name, or one of ours that is missing: no cache, no failure.
    """
    named = "redis.example" if fault == "other name" else "127.0.0.1"
    cafile = None if fault == "unknown authority" else files.cafile
    with (
        tls_in_front_of(port_of(own_redis), asks_for_certificate=fault == "no certificate", named=named) as port,
        closing(Watched(f"rediss://127.0.0.1:{port}/0", ssl_cafile=cafile)) as watched,
    ):
        recalled = watched.cache.recall([CAT])

        assert recalled is None
        assert {"error": 1} == watched.requests()


DAMAGE: dict[str, Callable[[bytes, bytes], bytes]] = {
    "unsigned": lambda value, _: value[:-32],
    "garbled": lambda value, _: value[:5] + bytes([value[5] ^ 1]) + value[6:],
    "signature garbled": lambda value, _: value[:-1] + bytes([value[-1] ^ 1]),
    "moved": lambda _, other: other,
}


@pytest.mark.parametrize("which", [0, 1], ids=["measured", "facts"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_value_that_was_not_signed_for_its_place_is_a_miss(
    redis_server: RedisAt, which: int, damage: Callable[[bytes, bytes], bytes]
) -> None:
    """
    Garbled, moved from another image, or not signed at all: counted as invalid, removed, and written anew.
    """
    with closing(Watched(redis_server.url, hmac_keys=KEYS[0])) as watched:
        watched.remember(CAT, DOG)
        cats, dogs = watched.keys(CAT)[which], watched.keys(DOG)[which]
        value, other = watched.redis.get(cats), watched.redis.get(dogs)
        assert isinstance(value, bytes)
        assert isinstance(other, bytes)
        watched.redis.set(cats, damage(value, other))
        recalled = watched.cache.recall([CAT, DOG])
        removed = watched.redis.exists(cats) == 0
        watched.remember(CAT)
        again = watched.cache.recall([CAT])

        assert found_alike(recalled, DOG)
        assert removed
        assert found_alike(again, CAT)
        assert {"hit": 2, "invalid": 1} == watched.requests()


def test_forged_with_another_key_or_with_none(redis_server: RedisAt) -> None:
    """
    What a worker without the key wrote, or with another, counts as invalid, whole and well formed as it is.
    """
    with ExitStack() as stack:
        ours = stack.enter_context(closing(Watched(redis_server.url, hmac_keys=KEYS[0])))
        shared: dict[str, Any] = {"namespace": ours.settings.namespace}
        unsigned = stack.enter_context(closing(Watched(redis_server.url, **shared)))
        forger = stack.enter_context(closing(Watched(redis_server.url, hmac_keys="f" * 64, **shared)))
        unsigned.remember(CAT)
        forger.remember(DOG)
        recalled = ours.cache.recall([CAT, DOG, EEL])

        assert {} == recalled
        assert {"invalid": 2, "miss": 1} == ours.requests()


def test_keys_are_rotated_without_losing_the_cache(redis_server: RedisAt) -> None:
    """
    Old values are read while the old key is still there, new ones are signed with the new key.
    """
    old, new = KEYS
    with ExitStack() as stack:
        before = stack.enter_context(closing(Watched(redis_server.url, hmac_keys=old)))
        shared: dict[str, Any] = {"namespace": before.settings.namespace}
        during = stack.enter_context(closing(Watched(redis_server.url, hmac_keys=f"{new},{old}", **shared)))
        after = stack.enter_context(closing(Watched(redis_server.url, hmac_keys=new, **shared)))
        before.remember(CAT)
        found = during.cache.recall([CAT])
        during.remember(DOG)
        later = after.cache.recall([CAT, DOG])

        assert found_alike(found, CAT)
        assert found_alike(later, DOG)
        assert {"hit": 1, "invalid": 1} == after.requests()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_whole_worker_over_all_of_it(
    own_redis: EmbeddedRedis, files: Files, new_rig: Callable[..., WorkerRig], tmp_path: Path
) -> None:
    """
    TLS on both sides, the documented user and signed values: the second worker finds what the first one kept.
    """
    keys = tmp_path / "keys"
    keys.write_text(KEYS[0], encoding="ascii")
    keys.chmod(0o600)
    rig = new_rig(redis_url=own_redis.url).create_topics(1)
    url = as_user(own_redis, documented_user(rig.settings.redis.namespace))
    with tls_in_front_of(port_of(own_redis), asks_for_certificate=True) as port:
        secured = url.replace("redis://", "rediss://").replace(str(port_of(own_redis)), str(port))
        rig.configure(f"redis.url={json.dumps(secured)}", *files.sets("redis"), f'redis.hmac_keys_file="{keys}"')
        caches = []
        for name in ("first", "second"):
            worker = rig.start(name)
            worker.until_started()
            reader = rig.reader()
            published = rig.publish([upload_event(f"{name}-cat", inline(small_jpeg(1)))])
            assert reader.until_answered(published), worker.text()
            assert worker.stop() == 0, worker.text()
            caches.append(reader.verdict_of(published[0])["cache"]["status"])

    assert ["miss", "hit"] == caches
    assert PASSWORD not in rig.text()
