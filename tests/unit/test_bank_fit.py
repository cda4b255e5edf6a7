"""
Does a bank fit an encoder: by its records, and by a picture that is encoded again.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import ErrorCode
from tests.bank_builders import NOON, a_source
from tests.fake_encoder import SPEC, FakeEncoder, fake_decoder, fake_embedder
from worker.bank.build import BuildPlan, build_bank
from worker.bank.files import StoredBank
from worker.bank.fit import check_fit, probe_picture
from worker.bank.manifest import GENERATED as SHIPPED_QUESTION
from worker.bank.sources import list_source
from worker.domain import ContentHash, EncoderFingerprint
from worker.errors import BankInvalid
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.views import DecodedPicture


@pytest.fixture
def bank(tmp_path: Path) -> StoredBank:
    """
    A bank of the fake encoder.
    """
    listing = list_source(a_source(tmp_path / "source"), SHIPPED_QUESTION)
    plan = BuildPlan(id="small", created_at=NOON)
    return build_bank(listing, tmp_path / "bank", embedder=fake_embedder(), plan=plan).bank


class Disguised(FakeEncoder):
    """
    An encoder that claims to be another.
    """

    def __init__(self, weights: int, claims: EncoderFingerprint) -> None:
        super().__init__(weights)
        self._fingerprint = claims


def test_the_encoder_that_built_a_bank_fits(bank: StoredBank) -> None:
    """
    Its probe lies exactly where it lay.
    """
    assert check_fit(bank, FakeEncoder(), fake_decoder()) == pytest.approx(1)


def test_another_precision_fits_when_the_probe_agrees(bank: StoredBank) -> None:
    """
    A bank that was built in fp32 serves a worker in bf16.
    """
    cosine = check_fit(bank, FakeEncoder(precision="bf16", noise=0.005), fake_decoder())

    assert 0.999 <= cosine < 1


def test_another_precision_is_refused_when_the_probe_disagrees(bank: StoredBank) -> None:
    """
    Both precisions are named, since that is where one would look.
    """
    with pytest.raises(BankInvalid, match=r"cosine 0\.9.*expected at least 0\.999.*bank fp32, encoder fp16"):
        check_fit(bank, FakeEncoder(precision="fp16", noise=0.2), fake_decoder())


def test_other_weights_are_refused_by_the_record(bank: StoredBank) -> None:
    """
    Before anything is encoded, and naming the part that differs and only that.
    """
    other = FakeEncoder(weights=2)

    with pytest.raises(BankInvalid, match=r"weights is .*, the bank wants") as refusal:
        check_fit(bank, other, fake_decoder())
    assert "architecture is" not in str(refusal.value)
    assert "preprocess is" not in str(refusal.value)
    assert other.encoded == 0


def test_other_weights_in_disguise_are_refused_by_the_probe(bank: StoredBank) -> None:
    """
    A fingerprint that lies, or an encoder that computes something else than it did, is found out.
    """
    liar = Disguised(2, FakeEncoder().fingerprint)

    with pytest.raises(BankInvalid, match="although fingerprints agree"):
        check_fit(bank, liar, fake_decoder())


def test_jpegs_that_are_reduced_otherwise_are_another_space_and_the_setting_is_named(bank: StoredBank) -> None:
    """
    A bank whose pictures were decoded whole does not serve an encoder whose pictures are not.
    """
    reduced = replace(SPEC, jpeg_oversampling=2, sha256="00" * 32)
    other = Disguised(1, replace(FakeEncoder().fingerprint, preprocess=reduced, space="11" * 32))

    with pytest.raises(BankInvalid, match=r"encoder\.jpeg_oversampling.* are part of preprocess"):
        check_fit(bank, other, fake_decoder())


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("architecture", {"architecture_sha256": "00" * 32, "space": "11" * 32}),
        ("preprocess", {"preprocess": replace(SPEC, sha256="00" * 32), "space": "11" * 32}),
        ("dim", {"dim": 25, "space": "11" * 32}),
        ("space", {"space": "11" * 32}),
    ],
)
def test_the_part_that_differs_is_named(bank: StoredBank, part: str, change: dict[str, object]) -> None:
    """
    So that an operator knows what to configure.
    """
    other = Disguised(1, replace(FakeEncoder().fingerprint, **change))  # type: ignore[arg-type] # any field

    with pytest.raises(BankInvalid, match=f"by another encoder: {part} is"):
        check_fit(bank, other, fake_decoder())


@pytest.mark.parametrize("model", ["local-dir:mine", "hf-hub:some/one", "starter"])
def test_the_file_that_the_rest_is_read_from_is_named(bank: StoredBank, model: str) -> None:
    """
    Where weights agree and what no checksum covers does not: a flipped bit in it looks like another encoder.
    """
    preprocess = replace(FakeEncoder().fingerprint, model=model, preprocess=replace(SPEC, sha256="00" * 32), space="1")
    weights = replace(FakeEncoder().fingerprint, model=model, weights_sha256="00" * 32, space="1")
    told = []
    for fingerprint in (preprocess, weights):
        with pytest.raises(BankInvalid) as refusal:
            check_fit(bank, Disguised(1, fingerprint), fake_decoder())
        told.append("look at open_clip_config.json beside them" in str(refusal.value))

    assert [True, False] == told


class SwappedChannels:
    """
    A decoder with the oldest of all bugs.
    """

    def decode(self, data: bytes, content_hash: ContentHash) -> DecodedPicture:
        """
        The picture in the wrong order of colours.
        """
        decoded = fake_decoder().decode(data, content_hash)
        return replace(decoded, pixels=np.ascontiguousarray(decoded.pixels[:, :, ::-1]))


def test_swapped_channels_are_found(bank: StoredBank) -> None:
    """
    The probe shows what no record says: each of its channels is different.
    """
    with pytest.raises(BankInvalid, match="something else"):
        check_fit(bank, FakeEncoder(), SwappedChannels())


def test_a_decoder_without_png_is_told_so(bank: StoredBank) -> None:
    """
    The probe is a PNG; a worker that allows none cannot be checked.
    """
    with pytest.raises(BankInvalid, match=r"PNG must be among decode\.formats"):
        check_fit(bank, FakeEncoder(), PillowDecoder(SPEC, DecodeLimits(formats=("JPEG",)), None))


def test_an_encoder_without_memory_is_told_so(bank: StoredBank) -> None:
    """
    One picture is all that is asked.
    """
    with pytest.raises(BankInvalid, match=ErrorCode.ENCODE_OUT_OF_MEMORY):
        check_fit(bank, FakeEncoder(fail_after=0), fake_decoder())


def test_the_probe_is_the_same_everywhere(tmp_path: Path) -> None:
    """
    Pixel for pixel, and with three channels that no exchange leaves alike.
    """
    (tmp_path / "probe.png").write_bytes(probe_picture())
    with Image.open(tmp_path / "probe.png") as picture:
        pixels = np.asarray(picture).astype(int)

    assert pixels.shape == (288, 384, 3)
    assert (int(pixels.sum()), int(pixels[::7, ::5].sum())) == (35230432, 1026539)
    assert len({pixels[:, :, channel].tobytes() for channel in range(3)}) == 3
