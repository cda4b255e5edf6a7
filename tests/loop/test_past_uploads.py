"""
Uploads that were judged before: recalled by the hash that their verdict names, and fetched only where that is unknown.
"""

import uuid
import zlib
from dataclasses import replace
from hashlib import sha256
from uuid import UUID

import pytest

from tests.bank_builders import a_picture
from tests.fake_encoder import FakeEncoder, fake_decoder
from tests.fakes_archive import InMemoryArchive
from tests.loop_rig import Tuning, Worker
from tests.loop_world import MISSING, World, each
from worker.adapters.sighting_codec import SightingScope
from worker.domain import ContentHash, Sighting, Upload
from worker.errors import ArchiveUnavailable
from worker.flow.stage_set import StageSet
from worker.ports import PastUpload
from worker.stages.embed import sighting_of
from worker.views import GLOBAL_ONLY, ViewSpec

SCOPE = SightingScope.of(FakeEncoder().fingerprint, perceptual_hash=False)
PERTURBED = ViewSpec(perturbation=True)
SHIFT = (0.5, 0.25, 0.125)


class Past:
    """
    Implements ``worker.ports.PastUploads``: what a test says of each upload, by its content id.
    """

    def __init__(self) -> None:
        self.uploads: dict[str, PastUpload] = {}

    def of(self, upload: Upload) -> PastUpload | None:
        """
        What was said of it.
        """
        return self.uploads.get(upload.data.content_id)


class Replay(Worker):
    """
    A worker that knows a past, with an archive beside its cache.
    """

    def __init__(self, world: World, past: Past, archive: InMemoryArchive, tuning: Tuning | None = None) -> None:
        self.past = past
        self.archive = archive
        super().__init__(world, tuning)

    def _surrounded(self, stages: StageSet) -> StageSet:
        return replace(stages, past=self.past, archive=self.archive)


def content_hash_of(data: bytes) -> ContentHash:
    """
    Who these bytes are.
    """
    return ContentHash(sha256(data).hexdigest())


def bytes_of(picture: str) -> bytes:
    """
    The bytes of a picture as the world shelves it.
    """
    return a_picture(zlib.crc32(picture.encode()))


def seen(picture: str, views: ViewSpec = GLOBAL_ONLY) -> tuple[ContentHash, Sighting]:
    """
    A picture's hash, and the sighting that a worker would make of it.
    """
    data, encoder = bytes_of(picture), FakeEncoder()
    content_hash = content_hash_of(data)
    decoded = fake_decoder(views).decode(data, content_hash)
    return content_hash, sighting_of(decoded, encoder.encode([decoded.pixels]))


def verdict_id_of(name: str) -> UUID:
    """
    The id of the verdict that an upload had in the past.
    """
    return uuid.uuid5(uuid.NAMESPACE_OID, name)


@pytest.fixture
def past() -> Past:
    """
    Nothing is known yet.
    """
    return Past()


@pytest.fixture
def archive() -> InMemoryArchive:
    """
    Nothing is kept yet.
    """
    return InMemoryArchive(SCOPE)


def remember(past: Past, name: str, picture: str | None = None) -> ContentHash:
    """
    An earlier verdict named the bytes of this upload.
    """
    data = bytes_of(picture or name)
    past.uploads[name] = PastUpload(content_hash_of(data), len(data), verdict_id_of(name))
    return content_hash_of(data)


def test_a_past_upload_is_judged_without_its_image(world: World, past: Past, archive: InMemoryArchive) -> None:
    """
    What is kept of its bytes is enough: nobody fetches, decodes or encodes, and the verdict says where it came from.
    """
    names = [f"past-{number}" for number in range(40)]
    for name in names:
        remember(past, name)
        archive.keep(dict([seen(name)]))
    world.publish(*names)
    world.shelf.pictures.clear()
    worker = Replay(world, past, archive)
    worker.finish()

    assert each(names, "judged") == world.ends()
    assert [] == worker.seams.passed("fetch") == worker.seams.passed("decode") == worker.seams.passed("encode")
    assert {("hit", "archive")} == {(one.cache.status, one.cache.tier) for one in world.verdicts()}
    assert {name: verdict_id_of(name) for name in names} == {one.content_id: one.supersedes for one in world.verdicts()}
    assert {None} == {one.timing.fetch_ms for one in world.verdicts()}
    assert 40 == worker.counted('embeddings_reused_total{tier="archive"}')


def test_recalled_and_fetched_come_to_the_same_decision(past: Past, archive: InMemoryArchive) -> None:
    """
    All that was judged is equal, whether the image was there or only what was kept of it.
    """
    found = []
    remember(past, "cat")
    archive.keep(dict([seen("cat")]))
    for known in (past, Past()):
        with World() as world:
            world.publish("cat")
            Replay(world, known, archive, Tuning(cached=False)).finish()
            fields = {"outcome", "thresholds", "scores", "evidence", "image", "decision_id"}
            found.append(world.verdicts()[0].model_dump(include=fields))

    assert found[0] == found[1]


def test_what_is_unknown_is_fetched(world: World, past: Past, archive: InMemoryArchive) -> None:
    """
    With a hash of which nothing is kept, with a past without a hash, and without a past: fetched, asked for only once.
    """
    content_hash = remember(past, "lost")
    past.uploads["nameless"] = PastUpload(None, 0, verdict_id_of("nameless"))
    world.publish("lost", "nameless", "new")
    worker = Replay(world, past, archive)
    worker.finish()
    superseded = {one.content_id: one.supersedes for one in world.verdicts()}

    assert each(["lost", "nameless", "new"], "judged") == world.ends()
    assert ["lost", "nameless", "new"] == sorted(worker.seams.passed("fetch"))
    assert {"lost": verdict_id_of("lost"), "nameless": verdict_id_of("nameless"), "new": None} == superseded
    assert 1 == archive.asked.count(content_hash)
    assert {"miss"} == {one.cache.status for one in world.verdicts()}


def test_an_image_that_is_gone_fails_with_its_code(world: World, past: Past, archive: InMemoryArchive) -> None:
    """
    Nothing is kept of it and nothing lies where it was: a failed verdict, which supersedes the earlier one.
    """
    past.uploads["gone"] = PastUpload(ContentHash("ab" * 32), 100, verdict_id_of("gone"))
    world.publish("gone", picture=MISSING)
    Replay(world, past, archive).finish()
    (verdict,) = world.verdicts()

    assert each(["gone"], "FETCH_NOT_FOUND") == world.ends()
    assert (verdict.supersedes, verdict.cache.status) == (verdict_id_of("gone"), "not_reached")


def test_an_image_that_has_changed_is_judged_anew(world: World, past: Past, archive: InMemoryArchive) -> None:
    """
    The verdict names the bytes that are there now, and a picture that cannot be decoded fails, superseding alike.
    """
    past.uploads["changed"] = PastUpload(ContentHash("ab" * 32), 100, verdict_id_of("changed"))
    past.uploads["broken"] = PastUpload(ContentHash("cd" * 32), 100, verdict_id_of("broken"))
    world.publish("changed", "broken")
    world.shelf.pictures["broken"] = b"no picture"
    Replay(world, past, archive).finish()
    verdicts = {one.content_id: one for one in world.verdicts()}

    assert {"changed": ["judged"], "broken": ["FORMAT_UNSUPPORTED"]} == world.ends()
    assert all(one.supersedes == verdict_id_of(name) for name, one in verdicts.items())
    assert verdicts["changed"].image is not None
    assert verdicts["changed"].image.sha256 == content_hash_of(bytes_of("changed"))


@pytest.mark.parametrize("cached", [True, False])
def test_a_mixture_is_conserved_and_in_order(
    world: World, past: Past, archive: InMemoryArchive, *, cached: bool
) -> None:
    """
    Kept, lost, gone, new and twins of each side by side: every upload ends once, in the order of its partition.
    """
    names = []
    for number in range(120):
        kind = ("kept", "lost", "gone", "new", "twin")[number % 5]
        name = f"{kind}-{number}"
        picture = {"gone": MISSING, "twin": "twin.png"}.get(kind, name)
        if kind != "new":
            content_hash = remember(past, name, "gone.png" if kind == "gone" else picture)
            past.uploads[name] = replace(past.uploads[name], content_hash=content_hash)
        if kind == "kept":
            archive.keep(dict([seen(picture)]))
        world.publish(name, picture=picture, partition=number % 3)
        names.append((name, kind))
    worker = Replay(world, past, archive, Tuning(cached=cached))
    worker.finish()
    order = [[name for at, (name, _) in enumerate(names) if at % 3 == number] for number in range(3)]

    assert {name: ["FETCH_NOT_FOUND" if kind == "gone" else "judged"] for name, kind in names} == world.ends()
    assert order == [world.judged(number) for number in range(3)]
    assert {} == worker.pipeline._flights._flights
    assert not [name for name in worker.seams.passed("fetch") if name.startswith("kept")]
    # Those that are asked for together are fetched each for itself; what is fetched is still encoded only once.
    assert 1 == worker.seams.passed("encode").count("twin.png")


def test_a_twin_that_was_fetched_serves_past_ones(world: World, past: Past, archive: InMemoryArchive) -> None:
    """
    What landed in this process is not asked of the archive.
    """
    world.publish("first", picture="cat")
    worker = Replay(world, past, archive, Tuning(cached=False))
    worker.step_until(world.all_answered)
    asked = len(archive.asked)
    remember(past, "second", "cat")
    world.publish("second", picture="cat")
    worker.finish()

    assert ["first"] == worker.seams.passed("fetch")
    assert asked == len(archive.asked)
    assert ("hit", "process") == (world.verdicts()[1].cache.status, world.verdicts()[1].cache.tier)


@pytest.mark.parametrize(("kept", "expected"), [(SHIFT, SHIFT), (None, None)])
def test_a_sighting_that_lacks_a_wanted_shift_is_judged_without(
    world: World, past: Past, kept: tuple[float, ...] | None, expected: tuple[float, ...] | None
) -> None:
    """
    The shift that was kept is used; where none was, nobody fetches for it, and the judge gets a sighting without.
    """
    scope = replace(SCOPE, views=PERTURBED.sha256)
    archive = InMemoryArchive(scope)
    content_hash, sighting = seen("grey", PERTURBED)
    archive.keep({content_hash: replace(sighting, shift=kept)})
    remember(past, "grey")
    world.publish("grey")
    worker = Replay(world, past, archive, Tuning(views=PERTURBED))
    worker.seams.grey.add("grey")
    worker.seams.pictures[content_hash] = "grey"
    worker.finish()

    assert [] == worker.seams.passed("fetch")
    assert expected == worker.seams.judged["grey"].shift


def test_an_archive_that_cannot_be_read_ends_the_run(world: World, past: Past, archive: InMemoryArchive) -> None:
    """
    A replay does not judge as if nothing were known: it ends, and commits nothing.
    """
    remember(past, "kept")
    archive.down = True
    world.publish("kept")
    run = Replay(world, past, archive).start()

    assert isinstance(run.fault(), ArchiveUnavailable)
    assert {} == world.ends()
    assert 0 == world.committed()
