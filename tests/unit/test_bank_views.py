"""
A bank's views: what is measured of every reference, stored, and asked for again when references are added.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.errors import ErrorCode
from tests.bank_builders import a_picture, a_source, add_to_small, build_small, snapshot, write_pictures
from tests.fake_encoder import DIM, FakeEncoder, fake_decoder, fake_embedder
from worker.bank.files import load_bank
from worker.bank.fit import check_fit
from worker.domain import ContentHash, Pixels
from worker.errors import BankInvalid
from worker.stages.embed import sighting_of
from worker.stages.perturb import COPIES, perturbed_copies, shift_of
from worker.views import GLOBAL_ONLY, DecodedPicture, ViewSpec

RICH = ViewSpec(native_crops=2, realism=True, perturbation=True)


def decoded(source: Path, name: str, views: ViewSpec) -> DecodedPicture:
    """
    A picture of the source under these views.
    """
    return fake_decoder(views).decode((source / name).read_bytes(), ContentHash("00" * 32))


def test_a_bank_holds_what_its_views_ask_for(tmp_path: Path) -> None:
    """
    Of each reference the very numbers that an upload of the same picture gets.
    """
    source = a_source(tmp_path / "source", reals=5, fakes=2)
    bank = build_small(source, tmp_path / "bank", fake_embedder(views=RICH)).bank
    encoder, stored = FakeEncoder(), bank.stored
    for row, name in enumerate(["fake/mill/000.png", "fake/mill/001.png", "real/000.png"]):
        picture = decoded(source, name, RICH)
        features = encoder.encode([picture.pixels, *picture.native])
        sighting = sighting_of(picture, features)
        native = stored.native[stored.native_owner == row]

        assert stored.vectors[row].tobytes() == sighting.embedding.as_half().tobytes()
        assert native.tobytes() == b"".join(crop.as_half().tobytes() for crop in sighting.native)
        assert len(native) == 2
        assert float(stored.norms[row]) == sighting.norm
        np.testing.assert_array_equal(stored.realism[row], np.asarray(picture.realism, np.float32))
        np.testing.assert_array_equal(
            stored.shift[row],
            np.asarray(shift_of(features[0], encoder.encode(perturbed_copies(picture.pixels))), np.float32),
        )
    assert bank.views == RICH
    assert bank.manifest.views.sha256 == RICH.sha256


def test_a_plain_bank_measures_nothing_more(tmp_path: Path) -> None:
    """
    One forward per picture, no crops, and not a number where nothing was measured; lengths are kept all the same.
    """
    encoder = FakeEncoder()
    bank = build_small(a_source(tmp_path / "source"), tmp_path / "bank", fake_embedder(encoder)).bank

    assert encoder.encoded == 1 + 10
    assert bank.views == GLOBAL_ONLY
    assert bank.stored.native.shape == (0, DIM)
    assert np.isnan(bank.stored.realism).all()
    assert np.isnan(bank.stored.shift).all()
    assert (bank.stored.norms > 0).all()


def test_the_cost_in_forwards(tmp_path: Path) -> None:
    """
    One for the global view, one per crop and six for the shift, in batches across pictures.
    """
    encoder = FakeEncoder()
    build_small(a_source(tmp_path / "source"), tmp_path / "bank", fake_embedder(encoder, batch_size=32, views=RICH))

    assert encoder.encoded == 1 + 10 * (1 + 2 + COPIES)
    assert encoder.batches == [1, 32, 32, 26]


def test_small_pictures_have_fewer_crops(tmp_path: Path) -> None:
    """
    Owners say whose each crop is.
    """
    source = a_source(tmp_path / "source", reals=2, fakes=1)
    (source / "real/000.png").write_bytes(a_picture(3, size=(32, 32)))
    views = ViewSpec(native_crops=2)
    stored = build_small(source, tmp_path / "bank", fake_embedder(views=views)).bank.stored

    assert stored.native_owner.tolist() == [0, 0, 1, 2, 2]


def test_what_lies_decoded_is_bounded_in_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With two crops beside the global view a part of six views is two pictures.
    """
    monkeypatch.setattr("worker.bank.embedding.PART", 6)
    encoder = FakeEncoder()
    embedder = fake_embedder(encoder, batch_size=32, views=ViewSpec(native_crops=2))
    build_small(a_source(tmp_path / "source"), tmp_path / "bank", embedder)

    assert encoder.batches == [1, *[6] * 5]


def test_references_are_added_with_the_banks_own_views(tmp_path: Path) -> None:
    """
    Old rows stay, new ones follow with all that was measured; other views are refused before any work.
    """
    source = a_source(tmp_path / "source")
    before = build_small(source, tmp_path / "bank", fake_embedder(views=RICH)).bank.stored
    write_pictures(source, "fake/loom/a.png", "fake/loom/b.png", first_seed=500)
    encoder = FakeEncoder()

    with pytest.raises(BankInvalid, match="add with the bank's own views"):
        add_to_small(tmp_path / "bank", source, fake_embedder(encoder, views=replace(RICH, perturbation=False)))
    assert encoder.encoded == 0
    after = add_to_small(tmp_path / "bank", source, fake_embedder(views=RICH)).bank

    assert after.views == RICH
    for name, column in before.tensors().items():
        assert after.stored.tensors()[name][: len(column)].tobytes() == column.tobytes()
    assert after.stored.native_owner[-4:].tolist() == [10, 10, 11, 11]
    assert np.isfinite(after.stored.shift).all()


def test_adding_at_once_or_in_turn_is_the_same(tmp_path: Path) -> None:
    """
    The columns of a bank that was built and added to are those of one that was built of all.
    """
    source = a_source(tmp_path / "source")
    build_small(source, tmp_path / "bank", fake_embedder(views=RICH))
    write_pictures(source, "real/zz.png", first_seed=500)
    build_small(source, tmp_path / "at-once", fake_embedder(views=RICH))
    add_to_small(tmp_path / "bank", source, fake_embedder(views=RICH))

    assert snapshot(tmp_path / "bank")["vectors.safetensors"] == snapshot(tmp_path / "at-once")["vectors.safetensors"]


def test_the_probe_is_looked_at_as_the_references_were(tmp_path: Path) -> None:
    """
    A bank that re-encodes fits a decoder that does too.
    """
    views = ViewSpec(reencode_quality=30, max_side_px=120)
    build_small(a_source(tmp_path / "source"), tmp_path / "bank", fake_embedder(views=views))

    assert check_fit(load_bank(tmp_path / "bank"), FakeEncoder(), fake_decoder(views)) == pytest.approx(1)


class Blind:
    """
    A decoder that was made for other views than those it is used with.
    """

    def __init__(self, views: ViewSpec) -> None:
        self._decoder = fake_decoder(views)

    def decode(self, data: bytes, content_hash: ContentHash) -> DecodedPicture:
        """
        What the other views ask for.
        """
        return self._decoder.decode(data, content_hash)


@pytest.mark.parametrize(
    ("made_for", "used_with"),
    [(ViewSpec(native_crops=2), GLOBAL_ONLY), (GLOBAL_ONLY, ViewSpec(realism=True)), (RICH, ViewSpec(native_crops=2))],
)
def test_a_decoder_of_other_views_is_found_out(tmp_path: Path, made_for: ViewSpec, used_with: ViewSpec) -> None:
    """
    A bank must not say that it measured what it did not.
    """
    embedder = replace(fake_embedder(views=used_with), decoder=Blind(made_for))

    with pytest.raises(ValueError, match="make both with the same views"):
        build_small(a_source(tmp_path / "source"), tmp_path / "bank", embedder)
    assert not (tmp_path / "bank").exists()


class BrokenCrops(FakeEncoder):
    """
    An encoder whose features of one certain crop are not finite.
    """

    def __init__(self, broken: Pixels) -> None:
        super().__init__()
        self._broken = broken.tobytes()

    def encode(self, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
        """
        Not a number for the broken one.
        """
        features = super().encode(pixels)
        features[[one.tobytes() == self._broken for one in pixels]] = np.nan
        return features


def test_a_view_that_is_not_finite_leaves_the_reference_out(tmp_path: Path) -> None:
    """
    Also when it is one of the crops or copies: half a reference is none.
    """
    source = a_source(tmp_path / "source", reals=20)
    crop = decoded(source, "real/001.png", RICH).native[1]
    copy = perturbed_copies(decoded(source, "real/002.png", RICH).pixels)[0]
    for name, broken in (("real/001.png", crop), ("real/002.png", copy)):
        out = tmp_path / broken.tobytes().hex()[:8]
        report = build_small(source, out, fake_embedder(BrokenCrops(broken), views=RICH))

        assert [(one.name, one.code) for one in report.skipped] == [(name, ErrorCode.ENCODE_NONFINITE)]
        assert len(report.bank.stored.native) == 2 * 23
