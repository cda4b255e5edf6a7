"""
Scenes of an animation: what is shown for long is looked at, in however many frames, and whatever is put before it.
"""

import time

import numpy as np
import pytest
from PIL import Image

from tests.pictures import ANY_HASH, decoder_of, encoded, photograph
from worker.domain import Pixels
from worker.stages.decode import DecodeLimits
from worker.stages.scenes import THUMBNAIL_SIDE, chosen_frames

SIDE = 48
COLOURS = ("black", "white", "red", "lime", "blue", "yellow", "cyan", "magenta")
FORMATS = ("GIF", "PNG", "WEBP", "AVIF")


def flat(colour: tuple[int, int, int]) -> Pixels:
    """
    A thumbnail of one colour.
    """
    return np.full((THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), colour, np.uint8)


def decoys(seed: int, count: int) -> list[Pixels]:
    """
    Thumbnails that have little in common with each other.
    """
    randomness = np.random.default_rng(seed)
    corners = randomness.integers(0, 2, (count, 2, 2, 3), dtype=np.uint8) * 255
    return [corner.repeat(THUMBNAIL_SIDE // 2, 0).repeat(THUMBNAIL_SIDE // 2, 1) for corner in corners]


@pytest.mark.parametrize("name", FORMATS)
def test_a_scene_of_many_short_frames_is_looked_at(name: str) -> None:
    """
    Flashes of every colour, each longer than any frame of what is shown for most of the time, do not hide that.
    """
    hidden = np.asarray(photograph(SIDE, SIDE, seed=3)) // 3 + 80
    scene = []
    for number in range(60):
        frame = Image.fromarray(hidden)
        frame.putpixel((number % SIDE, 0), (255, 0, number))  # or the encoder would join them to one frame
        scene.append(frame)
    frames = [photograph(SIDE, SIDE, seed=9), *(Image.new("RGB", (SIDE, SIDE), colour) for colour in COLOURS), *scene]
    shown_ms = [20] + [60] * len(COLOURS) + [50] * len(scene)
    options = {"lossless": True} if name == "WEBP" else {}
    data = encoded(frames[0], name, save_all=True, append_images=frames[1:], duration=shown_ms, loop=0, **options)
    seen = decoder_of(SIDE, limits=DecodeLimits(max_frames=8)).decode(data, ANY_HASH)

    assert 8 == len(seen.looks)
    assert min(float(np.abs(look.pixels.astype(int) - hidden).mean()) for look in seen.looks) < 10


@pytest.mark.parametrize("spread", [0, 6, 20])
def test_a_scene_that_moves_is_one_scene(spread: int) -> None:
    """
    Frames that resemble each other add up, whether or not they are nearly equal.
    """
    randomness = np.random.default_rng(1)
    scene = [
        np.clip(flat((120, 110, 130)) + randomness.normal(0, spread, (16, 16, 3)), 0, 255).astype(np.uint8)
        for _ in range(60)
    ]
    flashes = decoys(2, 30)
    thumbnails = np.stack([flat((60, 160, 60)), *flashes, *scene])
    found = chosen_frames(thumbnails, [20] + [60] * len(flashes) + [50] * len(scene), 8)

    assert max(found) > len(flashes)


def test_the_longest_scene_comes_before_more_flashes_than_scenes_are_told_apart() -> None:
    """
    Hundreds of flashes before, between and behind its frames do not push a scene out that is shown for half the time.
    """
    flashes = decoys(5, 400)
    hidden = [flat((118, 121, 119))] * 400
    thumbnails = np.stack([flat((0, 90, 0)), *(frame for pair in zip(flashes, hidden, strict=True) for frame in pair)])
    found = chosen_frames(thumbnails, [50] * 801, 4)

    assert any(number and number % 2 == 0 for number in found)


def test_what_stays_on_the_screen_is_looked_at() -> None:
    """
    The last frame of an animation that is shown once is shown for ever after, however short it says that it is.
    """
    frames = [photograph(SIDE, SIDE, seed=number) for number in range(40)]
    frames[-1] = Image.new("RGB", (SIDE, SIDE), (125, 125, 125))
    ways: dict[str, dict[str, int]] = {"once": {}, "endless": {"loop": 0}}
    scored = {}
    for told, options in ways.items():
        data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100, **options)
        facts = decoder_of(SIDE, limits=DecodeLimits(max_frames=3)).decode(data, ANY_HASH).facts
        scored[told] = facts.frames_scored

    assert 39 in scored["once"]
    assert 39 not in scored["endless"]


def test_ten_thousand_different_frames_are_compared_in_seconds() -> None:
    """
    What choosing costs grows with the frames, not with their square.
    """
    thumbnails = np.random.default_rng(0).integers(0, 256, (10_000, 16, 16, 3), dtype=np.uint8)
    thumbnails = (thumbnails // 64) + thumbnails[:, :1, :1] // 2
    began_s = time.thread_time()
    found = chosen_frames(thumbnails, [50.0] * 10_000, 8)

    assert 8 == len(set(found))
    assert sorted(found) == found
    assert 0 == found[0]
    assert time.thread_time() - began_s < 10
