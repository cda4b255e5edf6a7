"""
A build that was stopped goes on where it was, with its own work and nobody else's.
"""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.bank_builders import GENERATED, REAL, a_source, build_small, snapshot
from tests.fake_encoder import FakeEncoder, fake_embedder
from worker.bank.workshop import Workshop
from worker.errors import BankInvalid, CannotStart
from worker.views import GLOBAL_ONLY, ViewSpec


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Parts of three references, so that a few pictures make several.
    """
    monkeypatch.setattr("worker.bank.embedding.PART", 3)


def test_a_build_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """
    What was embedded before is not embedded again, and the bank is the same as of one run.
    """
    source = a_source(tmp_path / "source")
    with pytest.raises(CannotStart, match="the encoder gave up on"):
        build_small(source, tmp_path / "bank", fake_embedder(FakeEncoder(fail_after=7)))
    assert not (tmp_path / "bank").exists()

    encoder = FakeEncoder()
    report = build_small(source, tmp_path / "bank", fake_embedder(encoder))
    build_small(source, tmp_path / "at-once")

    assert report.reused == 6  # two whole parts; the probe was the seventh
    assert encoder.encoded == 1 + 4
    assert snapshot(tmp_path / "bank") == snapshot(tmp_path / "at-once")
    assert not (tmp_path / "bank.partial").exists()


def test_a_corrected_source_goes_on_too(tmp_path: Path) -> None:
    """
    What is kept is kept by content: files that were removed, renamed or added do not matter.
    """
    source = a_source(tmp_path / "source")
    with pytest.raises(CannotStart):
        build_small(source, tmp_path / "bank", fake_embedder(FakeEncoder(fail_after=7)))
    (source / "fake/mill/000.png").unlink()
    (source / "fake/mill/001.png").rename(source / "fake/mill/renamed.png")
    report = build_small(source, tmp_path / "bank")

    assert report.reused == 5
    assert report.bank.sizes == {REAL: 6, GENERATED: 3}


def test_work_of_another_encoder_is_not_mixed_in(tmp_path: Path) -> None:
    """
    The message says what to do, and --restart does it.
    """
    source = a_source(tmp_path / "source")
    with pytest.raises(CannotStart):
        build_small(source, tmp_path / "bank", fake_embedder(FakeEncoder(fail_after=7)))
    other = fake_embedder(FakeEncoder(weights=2))

    with pytest.raises(BankInvalid, match=r"holds work of encoder fake/pooled .*--restart"):
        build_small(source, tmp_path / "bank", other)
    assert build_small(source, tmp_path / "bank", other, restart=True).reused == 0


@pytest.mark.parametrize(
    "views",
    [ViewSpec(native_crops=2), ViewSpec(perturbation=True), ViewSpec(realism=True), ViewSpec(reencode_quality=90)],
)
def test_work_of_other_views_is_not_mixed_in(tmp_path: Path, views: ViewSpec) -> None:
    """
    Whatever of the views differs, the message says from what to what, and --restart begins anew.
    """
    source = a_source(tmp_path / "source")
    with pytest.raises(CannotStart):
        build_small(source, tmp_path / "bank", fake_embedder(FakeEncoder(fail_after=7)))

    with pytest.raises(BankInvalid, match=r"holds work of other views, native_crops 0.*expected .*--restart"):
        build_small(source, tmp_path / "bank", fake_embedder(views=views))
    assert build_small(source, tmp_path / "bank", fake_embedder(views=views), restart=True).reused == 0


def test_all_that_was_measured_survives_a_stop(tmp_path: Path) -> None:
    """
    Crops, norms, realism and shifts of a build that was stopped are those of one that was not.
    """
    views = ViewSpec(native_crops=2, realism=True, perturbation=True)
    source = a_source(tmp_path / "source")
    with pytest.raises(CannotStart):
        build_small(source, tmp_path / "bank", fake_embedder(FakeEncoder(fail_after=60), views=views))
    report = build_small(source, tmp_path / "bank", fake_embedder(views=views))
    build_small(source, tmp_path / "at-once", fake_embedder(views=views, batch_size=5))

    assert 0 < report.reused < 10
    assert snapshot(tmp_path / "bank") == snapshot(tmp_path / "at-once")


def test_half_a_part_is_embedded_again(tmp_path: Path) -> None:
    """
    A part that a power cut left damaged is not trusted.
    """
    source = a_source(tmp_path / "source")
    with pytest.raises(CannotStart):
        build_small(source, tmp_path / "bank", fake_embedder(FakeEncoder(fail_after=7)))
    part = tmp_path / "bank.partial/part-000001.safetensors"
    part.write_bytes(part.read_bytes()[:-20])
    report = build_small(source, tmp_path / "bank")
    build_small(source, tmp_path / "at-once")

    assert report.reused == 3
    assert snapshot(tmp_path / "bank") == snapshot(tmp_path / "at-once")


def test_two_builds_do_not_share_a_workshop(tmp_path: Path) -> None:
    """
    The second is refused while the first is at work.
    """
    source = a_source(tmp_path / "source")
    with (
        Workshop(tmp_path / "bank", FakeEncoder().fingerprint, views=GLOBAL_ONLY, restart=False),
        pytest.raises(BankInvalid, match="in use by another build"),
    ):
        build_small(source, tmp_path / "bank")

    assert build_small(source, tmp_path / "bank").added == 10


def test_the_journal_names_encoder_and_views(tmp_path: Path) -> None:
    """
    For people who look into the folder that a killed build left.
    """
    with pytest.raises(CannotStart):
        build_small(a_source(tmp_path / "source"), tmp_path / "bank", fake_embedder(FakeEncoder(fail_after=7)))
    journal = json.loads((tmp_path / "bank.partial/journal.json").read_text())

    assert (journal["encoder_id"], journal["model"]) == (FakeEncoder().fingerprint.id, "fake/pooled")
    assert (journal["views"], journal["views_sha256"]) == (asdict(GLOBAL_ONLY), GLOBAL_ONLY.sha256)
