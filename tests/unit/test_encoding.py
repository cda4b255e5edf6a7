"""
Micro-batches to sightings: which views go to the encoder in which calls, and whose shift is measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.errors import ErrorCode
from tests.bank_builders import a_picture
from tests.fake_encoder import FakeEncoder, fake_decoder
from tests.sightings import SHIFT, a_hash, a_sighting, bits, same
from worker.adapters.system_clock import SystemClock
from worker.domain import ContentHash, Embedding, Pixels, RawEvent, Sighting
from worker.errors import EventUnreadable, UploadFailed
from worker.flow.encoding import SightingMaker
from worker.flow.travellers import Failed, Known
from worker.outcomes import Outcome
from worker.stages.perturb import COPIES, perturbed_copies, shift_of
from worker.telemetry.metrics import InMemoryRecorder
from worker.views import GLOBAL_ONLY, Picture, ViewSpec

FULL = ViewSpec(native_crops=2, realism=True, perturbation=True)


@dataclass
class GreyZone:
    """
    A judge that wants the shift of those in ``grey``; ``asked`` is what it was asked of, ``fault`` what it raises.
    """

    grey: set[ContentHash] = field(default_factory=set)
    asked: list[list[ContentHash]] = field(default_factory=list)
    fault: Callable[[Sequence[Sighting]], None] = lambda _: None

    def wants_shift(self, sightings: Sequence[Sighting]) -> Sequence[bool]:
        """
        Whether each is in the grey zone.
        """
        hashes = [ContentHash(sighting.facts.sha256) for sighting in sightings]
        self.asked.append(hashes)
        self.fault(sightings)
        return [content_hash in self.grey for content_hash in hashes]

    def judge(self, known: Sequence[Known]) -> list[Outcome]:
        """
        Nobody comes so far.
        """
        raise NotImplementedError

    def fail(self, failed: Failed) -> Outcome:
        """
        Likewise.
        """
        raise NotImplementedError

    def dead_letter(self, raw: RawEvent, unreadable: EventUnreadable) -> Outcome:
        """
        Likewise.
        """
        raise NotImplementedError


class Moody(FakeEncoder):
    """
    An encoder that gives up, or answers with NaN, wherever one of these pictures is in the call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.too_much: set[bytes] = set()
        self.nan: set[bytes] = set()

    def encode(self, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
        """
        As the fake does, but for those.
        """
        if any(one.tobytes() in self.too_much for one in pixels):
            raise UploadFailed(ErrorCode.ENCODE_OUT_OF_MEMORY, "no memory for this one")
        features = super().encode(pixels)
        features[[one.tobytes() in self.nan for one in pixels]] = np.nan
        return features


class Forgetful(Moody):
    """
    An encoder that leaves out the first of its answers.
    """

    def encode(self, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
        """
        All but the first.
        """
        return super().encode(pixels)[1:]


@dataclass
class Bench:
    """
    A maker of sightings with all that it works with.
    """

    views: ViewSpec = FULL
    batch_size: int = 4
    judge: GreyZone = field(default_factory=GreyZone)
    encoder: Moody = field(default_factory=Moody)
    recorder: InMemoryRecorder = field(default_factory=InMemoryRecorder)

    def __post_init__(self) -> None:
        self.maker = SightingMaker(
            self.encoder,
            self.judge,
            self.views,
            batch_size=self.batch_size,
            clock=SystemClock(),
            recorder=self.recorder,
        )

    def pictures(self, count: int) -> list[Picture]:
        """
        Different pictures, decoded.
        """
        decoder = fake_decoder(self.views)
        hashes = [a_hash(str(number)) for number in range(count)]
        return [Picture(one, decoder.decode(a_picture(at), one), 1.0) for at, one in enumerate(hashes)]

    def make(self, pictures: Sequence[Picture]) -> list[Sighting]:
        """
        The sightings of pictures that all come to one.
        """
        results = self.maker.make(pictures).results
        assert not [result for result in results if isinstance(result, UploadFailed)]
        return [result for result in results if isinstance(result, Sighting)]

    def perturbed(self) -> dict[str, float]:
        """
        How many pictures were perturbed, by result.
        """
        found = self.recorder.counters()
        return {dict(one.labels)["result"]: count for one, count in found.items() if one.name == "perturbed_total"}


def test_of_the_global_view_alone_one_micro_batch_is_one_call() -> None:
    """
    Where a bank asks for nothing else, nothing else is encoded, and the judge is not asked.
    """
    bench = Bench(views=GLOBAL_ONLY)
    pictures = bench.pictures(3)
    sightings = bench.make(pictures)
    features = FakeEncoder().encode([picture.decoded.pixels for picture in pictures])

    assert [3] == bench.encoder.batches
    assert [] == bench.judge.asked
    for sighting, picture, feature in zip(sightings, pictures, features, strict=True):
        assert (
            bits(Sighting(Embedding.from_features(feature), picture.decoded.facts, float(np.linalg.norm(feature))))
            == bits(sighting)
        )  # fmt: skip


def test_all_views_are_encoded_in_calls_of_the_batch_size() -> None:
    """
    Each crop comes to its own picture, in order, whatever calls they were split into; nothing more than they hold.
    """
    bench = Bench()
    pictures = bench.pictures(3)
    pictures[1] = replace(pictures[1], decoded=replace(pictures[1].decoded, native=()))
    sightings = bench.make(pictures)
    alone = FakeEncoder()

    assert [4, 3] == bench.encoder.batches
    for sighting, picture in zip(sightings, pictures, strict=True):
        expected = [Embedding.from_features(alone.encode([crop])[0]) for crop in picture.decoded.native]
        assert [one.vector.tobytes() for one in expected] == [one.vector.tobytes() for one in sighting.native]
        assert picture.decoded.realism == sighting.realism is not None
        assert picture.decoded.facts == sighting.facts
        assert sighting.shift is None
    assert [2, 0, 2] == [len(sighting.native) for sighting in sightings]


@pytest.mark.parametrize("batch_size", [1, 4, 6, 13, 64])
def test_only_those_in_the_grey_zone_are_perturbed(batch_size: int) -> None:
    """
    The judge is asked once for the micro-batch; the shift is that of the copies, whatever calls they were split into.
    """
    bench = Bench(batch_size=batch_size)
    pictures = bench.pictures(5)
    bench.judge.grey = {pictures[1].content_hash, pictures[2].content_hash, pictures[4].content_hash}
    sightings = bench.make(pictures)
    alone = FakeEncoder()

    assert [[picture.content_hash for picture in pictures]] == bench.judge.asked
    assert max(bench.encoder.batches) <= batch_size
    assert 5 * 3 + 3 * COPIES == bench.encoder.encoded
    assert {"measured": 3} == bench.perturbed()
    for picture, sighting in zip(pictures, sightings, strict=True):
        pixels = picture.decoded.pixels
        expected = shift_of(alone.encode([pixels])[0], alone.encode(perturbed_copies(pixels)))
        assert (expected if picture.content_hash in bench.judge.grey else None) == sighting.shift


def test_without_memory_for_the_copies_there_is_no_shift_and_nobody_fails() -> None:
    """
    Those together in one call go without, the others are measured; the count says so.
    """
    bench = Bench(batch_size=COPIES)
    pictures = bench.pictures(3)
    bench.judge.grey = {picture.content_hash for picture in pictures}
    bench.encoder.too_much = {perturbed_copies(pictures[1].decoded.pixels)[4].tobytes()}
    sightings = bench.make(pictures)

    assert [True, False, True] == [sighting.shift is not None for sighting in sightings]
    assert {"measured": 2, "out_of_memory": 1} == bench.perturbed()


def test_copies_that_come_to_no_number_cost_the_shift_alone() -> None:
    """
    The picture's own features are finite: it is judged without its shift.
    """
    bench = Bench()
    pictures = bench.pictures(2)
    bench.judge.grey = {picture.content_hash for picture in pictures}
    bench.encoder.nan = {perturbed_copies(pictures[0].decoded.pixels)[0].tobytes()}
    sightings = bench.make(pictures)

    assert [False, True] == [sighting.shift is not None for sighting in sightings]
    assert {"measured": 1, "nonfinite": 1} == bench.perturbed()


@pytest.mark.parametrize("view", ["global", "native"])
def test_features_that_are_not_finite_fail_their_picture_alone(view: str) -> None:
    """
    Of the global view or of one crop: that picture has no sighting, and the others are perturbed as if it were not.
    """
    bench = Bench()
    pictures = bench.pictures(3)
    bench.judge.grey = {picture.content_hash for picture in pictures}
    decoded = pictures[1].decoded
    bench.encoder.nan = {(decoded.pixels if view == "global" else decoded.native[1]).tobytes()}
    first, second, third = bench.maker.make(pictures).results

    assert isinstance(second, UploadFailed)
    assert ErrorCode.ENCODE_NONFINITE == second.code
    for result in (first, third):
        assert isinstance(result, Sighting)
        assert result.shift is not None
    assert [[pictures[0].content_hash, pictures[2].content_hash]] == bench.judge.asked


def test_without_memory_for_a_crop_the_micro_batch_fails() -> None:
    """
    A sighting without one of its views would be another; the caller is told as for any other picture.
    """
    bench = Bench()
    pictures = bench.pictures(2)
    bench.encoder.too_much = {pictures[1].decoded.native[0].tobytes()}

    with pytest.raises(UploadFailed) as caught:
        bench.maker.make(pictures)
    assert ErrorCode.ENCODE_OUT_OF_MEMORY == caught.value.code


def test_a_judge_that_breaks_over_one_is_asked_of_the_others() -> None:
    """
    One sighting's fault is not its companions': they are asked for again one by one, and it goes without.
    """
    bench = Bench()
    pictures = bench.pictures(3)
    victim = pictures[1].content_hash

    def fault(sightings: Sequence[Sighting]) -> None:
        if any(sighting.facts.sha256 == victim for sighting in sightings):
            raise KeyError("lost")

    bench.judge.fault = fault
    bench.judge.grey = {picture.content_hash for picture in pictures}

    assert [True, False, True] == [sighting.shift is not None for sighting in bench.make(pictures)]


def test_an_encoder_that_answers_too_little_ends_the_process() -> None:
    """
    Which features belong to which picture cannot be told then, and no verdict may be made of them.
    """
    bench = Bench(views=GLOBAL_ONLY, encoder=Forgetful())

    with pytest.raises(RuntimeError, match="answered 2 features to 3"):
        bench.maker.make(bench.pictures(3))


def test_a_recalled_sighting_is_what_this_worker_would_make() -> None:
    """
    With a shift that is wanted it stays; one that is not wanted is taken off; without one that is wanted it is no hit.
    """
    bench = Bench()
    complete, superfluous, lacking, plain = (a_hash(name) for name in ("complete", "superfluous", "lacking", "plain"))
    bench.judge.grey = {complete, lacking}
    recalled = {
        complete: a_sighting(complete, shift=SHIFT),
        superfluous: a_sighting(superfluous, shift=SHIFT),
        lacking: a_sighting(lacking),
        plain: a_sighting(plain),
    }
    known = bench.maker.as_if_new(recalled)

    assert {complete, superfluous, plain} == set(known)
    assert same(recalled[complete], known[complete])
    assert same(a_sighting(superfluous), known[superfluous])
    assert same(recalled[plain], known[plain])


def test_a_worker_that_perturbs_nothing_uses_no_shift_of_others() -> None:
    """
    Nor does it ask its judge for a grey zone.
    """
    bench = Bench(views=replace(FULL, perturbation=False))
    cat = a_hash("cat")
    known = bench.maker.as_if_new({cat: a_sighting(cat, shift=SHIFT)})

    assert same(a_sighting(cat), known[cat])
    assert [] == bench.judge.asked


def test_every_look_is_a_whole_sighting_and_wants_its_own_shift() -> None:
    """
    The looks of one picture are encoded with those of others, and the shift is measured of each that wants it.
    """
    bench = Bench(judge=GreyZone({a_hash("0")}))
    first, second = bench.pictures(2)
    further = replace(second.decoded, facts=first.decoded.facts)
    sighting, other = bench.make([replace(first, decoded=replace(first.decoded, further=(further,))), second])
    look = sighting.looks[1]

    assert 2 == len(sighting.looks)
    assert [True, True] == [one.shift is not None for one in sighting.looks]
    assert other.shift is None
    assert bits(other) == bits(replace(look, shift=None))
    assert sighting.facts == look.facts


def test_a_recalled_sighting_lacks_the_shift_of_no_look_that_wants_it() -> None:
    """
    Of several looks one without the shift that it wants makes all of them be encoded again.
    """
    bench = Bench(judge=GreyZone({a_hash("0")}))
    shifted = a_sighting(a_hash("0"), shift=SHIFT)
    whole, lacking = replace(shifted, further=(shifted,)), replace(shifted, further=(replace(shifted, shift=None),))
    outside = a_sighting(a_hash("1"), shift=SHIFT)
    known = {a_hash("0"): whole, a_hash("1"): replace(outside, further=(outside,))}
    usable = bench.maker.as_if_new(known)

    assert whole == usable[a_hash("0")]
    assert [None, None] == [look.shift for look in usable[a_hash("1")].looks]
    assert {} == bench.maker.as_if_new({a_hash("0"): lacking})
