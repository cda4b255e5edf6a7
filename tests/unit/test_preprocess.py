"""
Preprocessing: equal to open_clip's own transform, and identified by all that matters.
"""

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from tests.pictures import OPENAI, photograph, spec_of
from worker.domain import PreprocessSpec
from worker.stages.preprocess import MAX_ASPECT, framed, preprocess_spec, resized

SIZES = (
    (224, 224), (225, 224), (224, 225), (223, 224), (448, 448), (640, 480), (480, 641), (1023, 767), (767, 1024),
    (300, 100), (101, 301), (64, 64), (63, 201), (1, 1), (1, 19), (38, 2), (17, 5), (1601, 901), (251, 250),
)  # fmt: skip


def normalised(picture: Image.Image, spec: PreprocessSpec) -> torch.Tensor:
    """
    What the encoder makes of our pixels.
    """
    pixels = np.asarray(framed(resized(picture, spec), spec))
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1).to(torch.float32).div_(255)
    return tensor.sub_(torch.tensor(spec.mean).view(3, 1, 1)).div_(torch.tensor(spec.std).view(3, 1, 1))


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_agrees_with_open_clip_bit_for_bit(resize_mode: str, interpolation: str) -> None:
    """
    For many sizes and aspects, our tensor is the very tensor of open_clip's inference transform.
    """
    config = {"resize_mode": resize_mode, "interpolation": interpolation, "fill_color": 7}
    transform = image_transform_v2(PreprocessCfg(size=224, **OPENAI, **config), is_train=False)
    pictures = [photograph(width, height, seed=width) for width, height in SIZES]
    spec = spec_of(224, **config)

    assert [] == [p.size for p in pictures if not torch.equal(transform(p), normalised(p, spec))]


def test_agrees_with_open_clip_on_grey_pictures() -> None:
    """
    A grey picture may be resized before it becomes RGB: the numbers are the same.
    """
    picture = photograph(301, 200).convert("L")
    transform = image_transform_v2(PreprocessCfg(size=64, **OPENAI), is_train=False)

    assert torch.equal(transform(picture), normalised(picture.convert("RGB"), spec_of(64)))


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 4000)])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_extreme_pictures_cost_no_more_than_others(size: tuple[int, int], resize_mode: str) -> None:
    """
    However long a picture is, the intermediate one stays small, and the input has its size.
    """
    spec = spec_of(224, resize_mode=resize_mode)
    small = resized(photograph(*size), spec)

    assert small.width * small.height <= MAX_ASPECT * 224 * 224
    assert framed(small, spec).size == (224, 224)


def test_the_middle_of_a_long_picture_is_kept() -> None:
    """
    Of a long picture the centre is seen, as with any other.
    """
    strip = Image.new("RGB", (3001, 30), "black")
    strip.paste("white", (1470, 0, 1531, 30))
    spec = spec_of(30)

    assert np.asarray(framed(resized(strip, spec), spec)).min() == 255


def test_identity_covers_every_field() -> None:
    """
    Two specs share their hash exactly when all their fields are equal.
    """
    base = {"size": 224, **OPENAI}
    others: list[dict[str, object]] = [
        {"size": 336},
        {"resize_mode": "squash"},
        {"interpolation": "bilinear"},
        {"fill_color": 1},
        {"mean": (0.5, 0.5, 0.5)},
        {"std": (0.5, 0.5, 0.5)},
    ]
    hashes = {preprocess_spec({**base, **other}).sha256 for other in others} | {preprocess_spec(base).sha256}

    assert len(others) + 1 == len(hashes)
    assert preprocess_spec(base) == preprocess_spec({**base, "size": (224, 224), "mode": "RGB"})


def test_open_clips_own_forms_are_understood() -> None:
    """
    A single number stands for three, None for the default, and ``random`` for bicubic, as in open_clip.
    """
    spec = preprocess_spec({"size": [64], "mean": 0.5, "std": 0.25, "interpolation": "random", "resize_mode": None})

    assert ((0.5,) * 3, (0.25,) * 3) == (spec.mean, spec.std)
    assert ("bicubic", "shortest", 64) == (spec.interpolation, spec.resize_mode, spec.size)


@pytest.mark.parametrize(
    "config",
    [
        {"size": (224, 336)},
        {"size": 0},
        {"resize_mode": "stretch"},
        {"interpolation": "nearest"},
        {"mean": (1, 2)},
        {"fill_color": 256},
    ],
)
def test_what_open_clip_would_not_do_is_refused(config: dict[str, object]) -> None:
    """
    A configuration that cannot be followed to the letter is refused, and the message says what was wanted.
    """
    with pytest.raises(ValueError, match="want"):
        preprocess_spec({"size": 224, **OPENAI, **config})
