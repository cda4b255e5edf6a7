"""
What every encoder owes the pipeline, held by untrained and trained ones, in each precision that the machine has.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.exported_encoders import EXPORTED, exported
from tests.pictures import ANY_HASH, photograph, spec_of
from tests.small_encoder import CountingRecorder, encoder_settings, loaded, mobilenet_encoder
from worker.adapters.clip_encoder import COMPOSITION_TOLERANCE, ClipEncoder, load_encoder
from worker.adapters.clip_tower import Precision, build, ready
from worker.adapters.exported_encoder import EXPORTED_TOLERANCE
from worker.dev.small_encoder import write_small_encoder
from worker.domain import Embedding, EncoderFingerprint, Pixels
from worker.ports import Encoder
from worker.stages.decode import DecodeLimits, PillowDecoder

COUNT = 8

# One architecture of each family that open_clip knows; each differs in what its tower is made of.
FAMILIES = (
    "ViT-B-32-quickgelu", "RN50-quickgelu", "convnext_base", "coca_ViT-B-32", "xlm-roberta-base-ViT-B-32",
    "ViT-B-16-SigLIP", "ViT-B-16-SigLIP2", "MobileCLIP-S1", "MobileCLIP2-S0", "EVA02-B-16", "ViTamin-S", "PE-Core-B-16",
    "ViT-S-32-alt", "swin_base_patch4_window7_224", "ViT-H-14-CLIPA",
)  # fmt: skip


TOLERANCE = {**COMPOSITION_TOLERANCE, **EXPORTED_TOLERANCE}


@pytest.fixture(scope="module", params=["small-fp32", "small-bf16", "trained-fp32", "trained-bf16", *EXPORTED])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """
    Each encoder in turn; the trained ones where the field data are, and those of other runtimes than torch.
    """
    kind, _, precision = request.param.partition("-")
    if request.param in EXPORTED:
        return exported(kind, precision)
    folder = tmp_path_factory.mktemp(kind)
    if kind == "small":
        return loaded(write_small_encoder(folder), precision=precision)
    return loaded(mobilenet_encoder(folder, request.getfixturevalue("shared_data")), precision=precision)


@pytest.fixture(scope="module")
def batch(encoder: Encoder) -> list[Pixels]:
    """
    Different pictures at this encoder's input size.
    """
    return pictures_for(encoder, COUNT)


def pictures_for(encoder: Encoder, count: int) -> list[Pixels]:
    """
    So many different pictures at an encoder's input size.
    """
    side = encoder.fingerprint.preprocess.size
    return [np.asarray(photograph(side, side, seed=n)) for n in range(count)]


def units(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """
    The unit vectors.
    """
    scaled: NDArray[np.float32] = features / np.linalg.norm(features, axis=1, keepdims=True)
    return scaled


def test_features_have_the_promised_form(encoder: Encoder, batch: list[Pixels]) -> None:
    """
    float32[n, dim] in order, finite, and a vector for each picture that an embedding can be made of.
    """
    features = encoder.encode(batch)

    assert np.dtype(np.float32) == features.dtype
    assert (COUNT, encoder.fingerprint.dim) == features.shape
    assert encoder.fingerprint.dim == Embedding.from_features(features[0]).vector.shape[0]
    assert (0, encoder.fingerprint.dim) == encoder.encode([]).shape
    assert COUNT == len({row.tobytes() for row in features})


def test_encoding_is_a_function(encoder: Encoder, batch: list[Pixels]) -> None:
    """
    The same batch gives the same numbers, bit for bit.
    """
    assert np.array_equal(encoder.encode(batch), encoder.encode(batch))


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(COUNT)), size=st.integers(1, COUNT))
def test_companions_do_not_matter(encoder: Encoder, batch: list[Pixels], order: list[int], size: int) -> None:
    """
    In whatever order and in micro-batches of whatever size, each picture keeps its unit vector within the tolerance.
    """
    together = units(encoder.encode(batch))[order]
    shuffled = [batch[n] for n in order]
    apart = units(np.concatenate([encoder.encode(shuffled[i : i + size]) for i in range(0, COUNT, size)]))

    assert np.abs(together - apart).max() <= TOLERANCE[encoder.fingerprint.precision]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_companions_do_not_matter_at_full_size(precision: Precision) -> None:
    """
    The tolerance holds for the shape of a real ViT-B/32 (untrained), whatever the size of its micro-batches.
    """
    torch.manual_seed(0)
    tower = build(open_clip.get_model_config("ViT-B-32"), precision).eval().requires_grad_(requires_grad=False)
    _, forward = ready(tower, spec_of(224), precision, torch.device("cpu"))
    fingerprint = EncoderFingerprint("untrained", "", "", spec_of(224), precision, 512, "", "")
    encoder = ClipEncoder(forward, fingerprint, device=torch.device("cpu"), recorder=CountingRecorder())
    batch = pictures_for(encoder, 6)
    together = units(encoder.encode(batch))
    apart = [units(np.concatenate([encoder.encode(batch[i : i + n]) for i in range(0, 6, n)])) for n in (1, 2, 4, 5)]

    assert max(np.abs(together - other).max() for other in apart) <= COMPOSITION_TOLERANCE[precision]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_open_clip_runs(name: str, precision: Precision) -> None:
    """
    A tower of each family is built without its text half and gives one vector per image in each precision, as it runs.

    On torch's meta device, which checks every shape and type and computes nothing.
    """
    architecture = open_clip.get_model_config(name)
    with torch.device("meta"):
        tower = build(architecture, precision).eval()
        side = tower.image_size
        assert isinstance(side, int | tuple)
        _, forward = ready(tower, spec_of(224), precision, torch.device("meta"))
    sides = (side, side) if isinstance(side, int) else side
    pixels = torch.zeros(2, *sides, 3, dtype=torch.uint8, device="meta")
    with torch.inference_mode():
        features = forward(pixels)

    assert (2, architecture["embed_dim"]) == tuple(features.shape)


def test_a_second_start_is_the_same_encoder(tmp_path: Path) -> None:
    """
    Loading twice gives one fingerprint and one set of numbers.
    """
    small = write_small_encoder(tmp_path)
    first, second = (load_encoder(encoder_settings(small), CountingRecorder()) for _ in range(2))
    batch = pictures_for(first, 4)

    assert first.fingerprint == second.fingerprint
    assert np.array_equal(first.encode(batch), second.encode(batch))


def recompressed(picture: Image.Image) -> Image.Image:
    """
    As a platform passes a picture on: smaller, and a JPEG of low quality.
    """
    buffer = io.BytesIO()
    smaller = picture.copy()
    smaller.thumbnail((320, 320))
    smaller.save(buffer, "JPEG", quality=50)
    return Image.open(buffer)


def cropped(picture: Image.Image) -> Image.Image:
    """
    Without a tenth of each side's end.
    """
    width, height = picture.size
    return picture.crop((width // 12, height // 12, width - width // 12, height - height // 12))


@pytest.mark.shared_data
@pytest.mark.parametrize("variant", [recompressed, cropped])
def test_trained_features_know_a_photograph_again(
    variant: Callable[[Image.Image], Image.Image], shared_data: Path, tmp_path: Path
) -> None:
    """
    Through the whole of decode, preprocess and encode, each photograph's variant is nearest to that photograph.
    """
    encoder = loaded(mobilenet_encoder(tmp_path, shared_data))
    decoder = PillowDecoder(encoder.fingerprint.preprocess, DecodeLimits(), None)
    files = sorted((shared_data / "images" / "bsds500" / "real").iterdir())[:40]
    varied = []
    for file in files:
        buffer = io.BytesIO()
        variant(Image.open(file)).save(buffer, "PNG")
        varied.append(decoder.decode(buffer.getvalue(), ANY_HASH).pixels)
    originals = units(encoder.encode([decoder.decode(file.read_bytes(), ANY_HASH).pixels for file in files]))
    cosines = units(encoder.encode(varied)) @ originals.T
    own = np.diag(cosines)

    assert list(range(len(files))) == cosines.argmax(axis=1).tolist()
    assert own.mean() > 0.85
    assert np.median(cosines) < 0.6
