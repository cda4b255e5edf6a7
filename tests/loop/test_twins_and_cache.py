"""
The same bytes are embedded once, each verdict says where its embedding came from, and it never matters for the rest.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from schemas.errors import ErrorCode
from schemas.verdict import ImageVerdictV1
from tests.bank_builders import a_picture
from tests.fake_encoder import DIM, FakeEncoder
from tests.loop_rig import KNOWN_GENERATED, KNOWN_REAL, Tuning, Worker
from tests.loop_seams import Seam
from tests.loop_world import MISSING, World, each, eventually
from worker.adapters.sighting_codec import (
    SightingScope,
    pack_facts,
    pack_measured,
    unpack_facts,
    unpack_measured,
)
from worker.domain import ContentHash, Sighting
from worker.errors import UploadFailed
from worker.ports import Remembered

TWINS = ["twin-0", "twin-1", "twin-2"]
CAT = "cat.png"


class ByteCache:
    """
    A cache that holds what Redis would hold, byte by byte; ``damage`` spoils every value.
    """

    def __init__(self) -> None:
        self.scope = SightingScope.of(FakeEncoder().fingerprint, perceptual_hash=False)
        self.values: dict[ContentHash, tuple[bytes, bytes]] = {}

    def recall(self, hashes: Sequence[ContentHash]) -> Mapping[ContentHash, Sighting]:
        """
        What can be read.
        """
        found = {}
        for content_hash in hashes:
            packed, packed_facts = self.values.get(content_hash, (b"", b""))
            measured = unpack_measured(packed, content_hash, self.scope)
            facts = unpack_facts(packed_facts, content_hash, self.scope)
            sighting = None if measured is None or facts is None else measured.with_facts(facts)
            if sighting is not None:
                found[content_hash] = sighting
        return found

    def remember(self, found: Mapping[ContentHash, Remembered]) -> frozenset[ContentHash]:
        """
        As bytes.
        """
        for content_hash, one in found.items():
            assert isinstance(one, Sighting), "nothing here is damaged"
            measured = pack_measured(one, content_hash, self.scope)
            self.values[content_hash] = (measured, pack_facts(one.facts, content_hash, self.scope))
        return frozenset()

    def damage(self) -> None:
        """
        One bit of each embedding is another.
        """
        for content_hash, (packed, facts) in self.values.items():
            self.values[content_hash] = (packed[:20] + bytes([packed[20] ^ 1]) + packed[21:], facts)

    def close(self) -> None:
        """
        Nothing is held.
        """


def provenance(world: World) -> dict[str, str]:
    """
    What each verdict says of its embedding.
    """
    return {
        one.content_id: one.cache.status + (f"/{one.cache.tier}" if one.cache.tier else "") for one in world.verdicts()
    }


def board_twins(world: World, worker: Worker) -> None:
    """
    Publish three uploads of the same bytes, and step until two of them follow the first.
    """
    world.publish(*TWINS, picture=CAT)
    worker.step_until(lambda: sum(map(len, worker.pipeline._flights._flights.values())) == 2)


@pytest.mark.parametrize("seam", ["recall", "decode", "encode"])
def test_twins_in_flight_are_embedded_once(world: World, seam: Seam) -> None:
    """
    Wherever the first of them is when the others come, they wait for it; each gets a verdict of its own.
    """
    worker = Worker(world)
    gate = worker.seams.gate(seam, CAT)
    board_twins(world, worker)
    gate.open()
    worker.finish()

    assert [CAT] == worker.seams.passed("encode") == worker.seams.passed("decode")
    assert ["coalesced", "coalesced", "miss"] == sorted(provenance(world).values())
    assert 3 == len({one.verdict_id for one in world.verdicts()})
    assert 2 == worker.counted('embeddings_reused_total{tier="coalesced"}')


@pytest.mark.parametrize(
    ("seam", "fault", "code"),
    [
        ("decode", UploadFailed(ErrorCode.DECODE_TIMEOUT, "no"), "DECODE_TIMEOUT"),
        ("decode", KeyError("lost"), "INTERNAL"),
        ("encode", UploadFailed(ErrorCode.ENCODE_OUT_OF_MEMORY, "no"), "ENCODE_OUT_OF_MEMORY"),
    ],
)
def test_when_the_leader_fails_its_followers_fail_alike(world: World, seam: Seam, fault: Exception, code: str) -> None:
    """
    The same bytes, the same failure: under the same code, each in a verdict of its own; the next twin is tried anew.
    """
    worker = Worker(world)
    gate = worker.seams.gate("recall", CAT)
    board_twins(world, worker)
    worker.seams.fail(seam, CAT, fault, times=1)
    gate.open()
    worker.step_until(world.all_committed)
    world.publish("later", picture=CAT)
    worker.finish()

    assert each(TWINS, code) | {"later": ["judged"]} == world.ends()
    assert 4 == len({one.verdict_id for one in world.verdicts()})
    assert 2 == worker.seams.passed(seam).count(CAT)


def test_a_leader_that_is_forgotten_still_serves_its_followers(world: World) -> None:
    """
    The first twin's partition goes to another worker while it is embedded; the second, which stays, is served by it.
    """
    worker = Worker(world)
    gate = worker.seams.gate("decode", CAT)
    world.publish("leader", partition=1, picture=CAT)
    worker.step_until(lambda: CAT in worker.seams.passed("decode"))
    world.publish("follower", partition=0, picture=CAT)
    worker.step_until(lambda: sum(map(len, worker.pipeline._flights._flights.values())) == 1)
    other = Worker(world, name="other")
    worker.step_until(lambda: worker.counted("uploads_forgotten_total") == 1)
    gate.open()
    worker.step_until(lambda: world.judged() == ["follower"])
    other.step_until(world.all_answered)

    assert ["follower", "leader"] == world.judged()
    assert "coalesced" == provenance(world)["follower"]


def test_a_twin_that_comes_later_is_known_in_the_process(world: World) -> None:
    """
    What was embedded lately is not asked of the cache again, nor decoded, nor encoded.
    """
    world.publish("first", picture=CAT)
    worker = Worker(world)
    worker.step_until(world.all_answered)
    world.publish("second", picture=CAT)
    worker.finish()

    assert {"first": "miss", "second": "hit/process"} == provenance(world)
    for seam in ("recall", "decode", "encode"):
        assert [CAT] == worker.seams.passed(seam)
    assert 1 == worker.counted('embeddings_reused_total{tier="process"}')


def test_another_worker_finds_it_in_the_cache(world: World) -> None:
    """
    A hit skips decode and encode; twins that wait for the cache's answer share it.
    """
    world.publish("first", picture=CAT)
    first = Worker(world)
    first.finish()
    eventually(lambda: bool(world.kept))
    second = Worker(world)
    gate = second.seams.gate("recall", CAT)
    board_twins(world, second)
    gate.open()
    second.finish()

    assert ["coalesced", "coalesced", "hit/redis", "miss"] == sorted(provenance(world).values())
    assert [] == second.seams.passed("decode") == second.seams.passed("encode")
    assert 1 == second.counted('embeddings_reused_total{tier="redis"}')
    timing = {one.cache.status: one.timing for one in world.verdicts()}
    assert (None, None, None) == (timing["hit"].decode_ms, timing["hit"].encode_ms, timing["hit"].batch_size)
    assert timing["miss"].decode_ms is not None
    assert timing["miss"].encode_ms is not None


def test_the_verdict_says_when_the_cache_could_not_be_asked(world: World) -> None:
    """
    Bypass where it is down or broken, disabled where there is none, not reached where there was nothing to look up.
    """
    world.publish("down")
    worker = Worker(world)
    worker.seams.fail("recall", "broken", RuntimeError("unforeseen"))
    cache = worker.pipeline._stages.cache
    cache._cache.down = True  # type: ignore[union-attr] # there is one, and it is in memory
    worker.step_until(world.all_answered)
    cache._cache.down = False  # type: ignore[union-attr] # likewise
    world.publish("broken", "up")
    world.publish(MISSING, picture=MISSING)
    worker.finish()
    world.publish("without")
    Worker(world, Tuning(cached=False)).finish()

    expected = {"down": "bypass", "broken": "bypass", "without": "disabled", MISSING: "not_reached"}
    assert expected.items() <= provenance(world).items()
    assert provenance(world)["up"] in {"miss", "bypass"}  # it may have been asked for together with the broken one


def test_what_was_embedded_last_is_remembered_before_the_worker_leaves(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The last verdict may be out and the pipeline closing while the encoder's thread still has its books to keep.
    """
    worker = Worker(world)
    gate = worker.seams.gate("fetch", "nobody")
    land = worker.pipeline._flights.land

    def land_late(content_hash: ContentHash, sighting: Sighting | None, *, turn: int) -> list[Any]:
        gate()
        return land(content_hash, sighting, turn=turn)

    monkeypatch.setattr(worker.pipeline._flights, "land", land_late)
    world.publish("last")
    worker.finish()
    worker.pipeline.close(0.0)
    gate.open()

    eventually(lambda: bool(world.kept))
    assert ["last"] == worker.seams.passed("remember")


def decision(verdict: ImageVerdictV1) -> dict[str, Any]:
    """
    All of a verdict that a judgement consists of.
    """
    fields = {
        "decision_id",
        "verdict_id",
        "content_id",
        "outcome",
        "thresholds",
        "scores",
        "evidence",
        "image",
        "audit",
    }
    return verdict.model_dump(mode="json", include=fields)


def vectors(worker: Worker, picture: str) -> set[bytes]:
    """
    With which vectors a bank was asked about a picture.
    """
    known = worker.seams.pictures.items()
    return {key for key, name in known if name == picture and isinstance(key, bytes) and len(key) == DIM * 4}


def judge_all(
    world: World, *, tuning: Tuning | None = None, cache: ByteCache | None = None, down: bool = False
) -> Worker:
    """
    A worker judges six uploads of six pictures, two of which are in the bank.
    """
    world.shelf.pictures |= {"real": a_picture(KNOWN_REAL), "generated": a_picture(KNOWN_GENERATED)}
    for number, name in enumerate(["real", "a", "b", "generated", "c", "d"]):
        world.publish(name, partition=number % 3)
    worker = Worker(world, tuning, cache=cache)
    if down:
        worker.seams.fail("recall", "*", ConnectionError())
    worker.finish()
    return worker


def test_where_an_embedding_came_from_changes_no_decision() -> None:
    """
    The same vector bit for bit, and the same decision in every field, from wherever the embedding came.

    It is computed alone or among others, recalled as bytes, or computed past a cache that is broken or poisoned.
    """
    cache = ByteCache()
    ways: list[tuple[str, dict[str, Any]]] = [
        ("disabled", {"tuning": Tuning(cached=False, batch_size=1)}),
        ("miss", {"cache": cache}),
        ("hit/redis", {"cache": cache}),
        ("bypass", {"cache": cache, "down": True}),
        ("miss", {"cache": cache}),
    ]
    decisions: list[list[dict[str, Any]]] = []
    asked: list[list[set[bytes]]] = []
    for number, (status, way) in enumerate(ways):
        if number == len(ways) - 1:
            cache.damage()
        with World() as world:
            worker = judge_all(world, **way)
            names = sorted(world.positions)
            assert dict.fromkeys(names, status) == provenance(world)
            decisions.append(sorted(map(decision, world.verdicts()), key=lambda one: str(one["content_id"])))
            asked.append([vectors(worker, name) for name in names])

    assert {"abstained", "decided"} == {one["outcome"]["status"] for one in decisions[0]}
    assert all(decisions[0] == found for found in decisions)
    assert all(len(found) == 1 for found in asked[0])
    assert all(asked[0] == found for found in asked)


def test_twins_get_the_same_decision(world: World) -> None:
    """
    Leader, followers and a later twin differ in who they are and in nothing that was judged.
    """
    worker = Worker(world)
    gate = worker.seams.gate("decode", CAT)
    board_twins(world, worker)
    gate.open()
    worker.step_until(world.all_answered)
    world.publish("later", picture=CAT)
    worker.finish()
    own = {"decision_id", "verdict_id", "content_id"}
    found = [{field: value for field, value in decision(one).items() if field not in own} for one in world.verdicts()]

    assert {"miss", "coalesced", "hit/process"} == set(provenance(world).values())
    assert [found[0]] * 4 == found
