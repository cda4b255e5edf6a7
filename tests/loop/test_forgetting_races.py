"""
A deletion that is followed while the upload is on its way: wherever it is stopped, nothing of it is kept afterwards.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256

import pytest

from tests.fake_encoder import FakeEncoder
from tests.fakes_archive import InMemoryArchive
from tests.fakes_cache import InMemoryCache, Kept
from tests.fakes_forgetting import InMemoryContents
from tests.loop_rig import Worker
from tests.loop_seams import PATIENCE_S, Gate, Seam
from tests.loop_world import World, eventually
from worker.adapters.sighting_codec import SightingScope
from worker.contents import ContentName
from worker.domain import ContentHash, Sighting
from worker.flow import keeping, remembering
from worker.flow.stage_set import StageSet
from worker.operation.forgetting import Deletion, Stores, forget
from worker.operation.listening import DeletionListener, Overlooked
from worker.operation.noting import ContentNotes, Noticed, NotingJudge
from worker.ports import EmbeddingCache, Remembered

SCOPE = SightingScope.of(FakeEncoder().fingerprint, perceptual_hash=False)
CAT, DOG = "cat.png", "dog.png"


class GatedArchive(InMemoryArchive):
    """
    An archive whose writes stop at ``gate`` as soon as there is one.
    """

    def __init__(self) -> None:
        super().__init__(SCOPE)
        self.gate: Gate | None = None

    def keep(self, sightings: Mapping[ContentHash, Sighting]) -> None:
        """
        As always, after the gate.
        """
        if self.gate is not None:
            self.gate()
        super().keep(sightings)


class MarkedCache(InMemoryCache):
    """
    A cache in which others have forgotten what is ``marked``.
    """

    def __init__(self, scope: SightingScope, *, kept: Kept) -> None:
        super().__init__(scope, kept=kept)
        self.marked: set[ContentHash] = set()

    def remember(self, found: Mapping[ContentHash, Remembered]) -> frozenset[ContentHash]:
        """
        What is not marked, as always; and what is.
        """
        super().remember({name: one for name, one in found.items() if name not in self.marked})
        return frozenset(self.marked & found.keys())


class ForgetfulWorker(Worker):
    """
    A worker with a cache, an archive and an index of contents, which forgets from all of them.
    """

    def __init__(self, world: World, *, cache: EmbeddingCache | None = None) -> None:
        self.archive = GatedArchive()
        self.index = InMemoryContents()
        self.noticed = Noticed()
        super().__init__(world, cache=cache)

    def _surrounded(self, stages: StageSet) -> StageSet:
        self.notes = ContentNotes(self.index, self.recorder, self.noticed)
        return replace(stages, judge=NotingJudge(stages.judge, self.notes), keep=self.archive)

    def stores(self) -> Stores:
        """
        All of them, in the order of a real worker.
        """
        return Stores(self.index, {"process": self.pipeline, "archive": self.archive, "redis": Shared(self.world)})

    def follows(self, deletion: Deletion) -> None:
        """
        A deletion is heard, and followed as far as it goes.
        """
        forget([deletion], self.stores(), self.recorder)

    def write_notes(self) -> None:
        """
        All that was offered is noted; no more is taken after that.
        """
        self.notes.close()
        self.notes.work()


class Shared:
    """
    A ``Forgetter`` over the cache that all workers of a world share.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Remove these.
        """
        gone = [key for key in list(self._world.kept) if key[1] in hashes]
        return sum(self._world.kept.pop(key, None) is not None for key in gone)


def hash_of(world: World, picture: str) -> ContentHash:
    """
    Of a picture's bytes.
    """
    return ContentHash(sha256(world.shelf.pictures[picture]).hexdigest())


def nothing_is_kept(worker: ForgetfulWorker, content_hash: ContentHash) -> bool:
    """
    Neither in the process, nor in the archive, nor in the shared cache.
    """
    in_process = worker.pipeline._flights.landed(content_hash)
    in_cache = [key for key in list(worker.world.kept) if key[1] == content_hash]
    return in_process is None and not worker.archive.recall([content_hash]) and not in_cache


@contextmanager
def following(work: Callable[[], object]) -> Iterator[Future[object]]:
    """
    Work in a thread of its own, which has ended afterwards.
    """
    done: Future[object] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as fault:  # noqa: BLE001 - told to the test
            done.set_exception(fault)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield done
    thread.join(PATIENCE_S)

    assert not thread.is_alive()


def until_written(worker: ForgetfulWorker) -> None:
    """
    All that was queued until now is written or let go: what came last is in the cache and in the archive.
    """
    worker.world.publish("last", partition=2)
    last = hash_of(worker.world, "last")
    eventually(lambda: (SCOPE, last) in worker.world.kept and bool(worker.archive.recall([last])))


@pytest.mark.parametrize("seam", ["fetch", "recall", "decode", "encode"])
def test_an_upload_in_flight_is_judged_and_not_kept(world: World, seam: Seam) -> None:
    """
    Its bytes are forgotten while it is stopped at a stage: it has its verdict, and nothing of it stays anywhere.

    A later upload of the same bytes is computed anew, and that is kept: its content is another.
    """
    worker = ForgetfulWorker(world)
    gate = worker.seams.gate(seam)
    world.publish("one", picture=CAT)
    run = worker.start()
    gate.wait_for_arrival()
    worker.follows(Deletion(None, (hash_of(world, CAT),)))
    gate.open()
    until_written(worker)
    gone = nothing_is_kept(worker, hash_of(world, CAT))
    world.publish("two", picture=CAT)
    eventually(lambda: (SCOPE, hash_of(world, CAT)) in world.kept)
    eventually(world.all_answered)
    run.drained()

    assert gone
    assert {"one": "miss", "two": "miss", "last": "miss"} == {
        verdict.content_id: verdict.cache.status for verdict in world.verdicts()
    }


def test_what_is_queued_for_the_cache_is_not_written(world: World) -> None:
    """
    A sighting waits behind a write that hangs. The deletion waits for that write only, and the other is let go.
    """
    worker = ForgetfulWorker(world)
    gate = worker.seams.gate("remember", "first")
    world.publish("first")
    run = worker.start()
    gate.wait_for_arrival()
    world.publish("one", picture=CAT)
    eventually(world.all_answered)
    both = [hash_of(world, "first"), hash_of(world, CAT)]
    with following(lambda: worker.follows(Deletion(None, tuple(both)))) as followed:
        gate.open()
        followed.result(PATIENCE_S)
    until_written(worker)
    run.drained()

    assert all(nothing_is_kept(worker, content_hash) for content_hash in both)
    assert ["first", "last"] == worker.seams.passed("remember")


def test_what_is_queued_for_the_archive_is_not_written(world: World) -> None:
    """
    Likewise; one that was recalled from the cache, and is on its way into the archive only, is no exception.
    """
    before = ForgetfulWorker(world)
    world.publish("earlier", picture=CAT)
    before.step_until(lambda: world.all_answered() and world.all_committed() and bool(world.kept))
    before.vanish()
    worker = ForgetfulWorker(world)
    worker.archive.gate = gate = Gate()
    world.publish("first")
    run = worker.start()
    gate.wait_for_arrival()
    world.publish("one", picture=CAT)
    world.publish("two", picture=DOG)
    eventually(world.all_answered)
    three = [hash_of(world, picture) for picture in ("first", CAT, DOG)]
    with following(lambda: worker.follows(Deletion(None, tuple(three)))) as followed:
        gate.open()
        followed.result(PATIENCE_S)
    until_written(worker)
    run.drained()

    assert "hit" == next(verdict.cache.status for verdict in world.verdicts() if verdict.content_id == "one")
    assert all(nothing_is_kept(worker, content_hash) for content_hash in three)


@pytest.mark.parametrize(("seam", "store"), [("remember", "the cache"), (None, "the archive")])
def test_a_write_that_never_ends_is_a_failure(
    world: World, monkeypatch: pytest.MonkeyPatch, seam: Seam | None, store: str
) -> None:
    """
    What may still arrive is not called forgotten: it is said, and the deletion tried again, until the write has ended.
    """
    for module in (keeping, remembering):
        monkeypatch.setattr(module, "WRITE_ENDS_S", 0.01)
    worker = ForgetfulWorker(world)
    gate = worker.archive.gate = Gate()
    if seam is not None:
        gate.open()
        gate = worker.seams.gate(seam)
    world.publish("one", picture=CAT)
    run = worker.start()
    gate.wait_for_arrival()
    deletion = Deletion(None, (hash_of(world, CAT),))
    first = forget([deletion], worker.stores(), worker.recorder)
    gate.open()
    until_written(worker)
    second = forget([deletion], worker.stores(), worker.recorder)
    run.drained()

    assert {"process"} == set(first.failed)
    assert f"a write to {store}" in first.failed["process"]
    assert {} == second.failed
    assert nothing_is_kept(worker, hash_of(world, CAT))


def test_a_deletion_that_overtakes_its_upload_is_followed_afterwards(world: World) -> None:
    """
    It finds nothing, because nobody has seen the content yet; when that is judged and noted, its bytes are forgotten.
    """
    worker = ForgetfulWorker(world)
    worker.follows(Deletion(ContentName("acme", "one")))
    world.publish("one", "two")
    run = worker.start()
    until_written(worker)
    eventually(world.all_answered)
    tenants = {verdict.content_id: verdict.tenant_id for verdict in world.verdicts()}
    worker.follows(Deletion(ContentName(tenants["one"], "one")))
    worker.write_notes()
    listener = DeletionListener(None, worker.stores(), worker.recorder, overlooked(worker))
    with following(listener.work):
        eventually(lambda: nothing_is_kept(worker, hash_of(world, "one")))
        listener.end()
    run.drained()

    assert not nothing_is_kept(worker, hash_of(world, "two"))
    assert [] == worker.noticed.take()


def test_what_others_forgot_in_flight_is_forgotten_here_too(world: World) -> None:
    """
    The cache says at the write that somebody forgot the bytes since they were recalled: archive and process follow.
    """
    cache = MarkedCache(SCOPE, kept=world.kept)
    worker = ForgetfulWorker(world, cache=cache)
    gate = worker.seams.gate("encode")
    world.publish("one", picture=CAT)
    run = worker.start()
    gate.wait_for_arrival()
    cache.marked.add(hash_of(world, CAT))
    gate.open()
    until_written(worker)
    kept_at_first = bool(worker.archive.recall([hash_of(world, CAT)]))
    listener = DeletionListener(None, worker.stores(), worker.recorder, overlooked(worker))
    with following(listener.work):
        eventually(lambda: nothing_is_kept(worker, hash_of(world, CAT)))
        listener.end()
    run.drained()

    assert kept_at_first
    assert not nothing_is_kept(worker, hash_of(world, "last"))


def overlooked(worker: ForgetfulWorker) -> Overlooked:
    """
    What a listener of this worker follows unannounced.
    """
    return Overlooked(worker.noticed, worker.pipeline, worker.stores())
