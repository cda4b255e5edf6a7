"""
The fitted judgement of a bank: written with it in one step, checked like it, gone when the references change.
"""

import os
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.bank_builders import GENERATED, a_source, add_to_small, build_small, sha, snapshot, write_pictures
from tests.fake_encoder import FakeEncoder, fake_embedder
from tests.fake_teacher import Fitted
from worker.bank.files import StoredBank, load_bank
from worker.bank.release import with_judgement
from worker.bank.survey import Progress
from worker.bank.verify import verify_bank
from worker.errors import BankInvalid, CannotStart
from worker.ports import Bank


@pytest.fixture
def fitted_bank(tmp_path: Path) -> Path:
    """
    Version 2 of a bank of ten references, which is its first with a judgement.
    """
    build_small(a_source(tmp_path / "source"), tmp_path / "bank")
    with_judgement(tmp_path / "bank", Fitted())
    return tmp_path / "bank"


def more_fakes(tmp_path: Path) -> Path:
    """
    Two pictures of a generator that the bank does not know.
    """
    write_pictures(tmp_path / "more", "fake/loom/a.png", "fake/loom/b.png", first_seed=500)
    return tmp_path / "more"


def test_a_judgement_is_released_with_the_same_references(tmp_path: Path) -> None:
    """
    In the old one's place and one version on, named by the manifest; nothing else is left beside it.
    """
    before = build_small(a_source(tmp_path / "source"), tmp_path / "bank").bank
    after = with_judgement(tmp_path / "bank", Fitted())
    loaded = load_bank(tmp_path / "bank")

    assert before.manifest.judgement is None
    assert loaded.manifest == after.manifest
    assert loaded.manifest.judgement is not None
    assert (loaded.manifest.version, loaded.manifest.judgement.id) == ("2", sha("fitted"))
    assert loaded.manifest.checksums == before.manifest.checksums
    assert loaded.manifest_sha256 != before.manifest_sha256
    assert (tmp_path / "bank/judgement.json").read_bytes() == b'{"a": 1}'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank", "source"]


def test_a_released_bank_can_be_read_by_the_user_of_a_worker(fitted_bank: Path) -> None:
    """
    The folder may be entered and each file read by others.
    """
    assert fitted_bank.stat().st_mode & stat.S_IXOTH
    assert {file.name for file in fitted_bank.iterdir() if not file.stat().st_mode & stat.S_IROTH} == set()


def test_a_judgement_can_be_released_elsewhere(fitted_bank: Path, tmp_path: Path) -> None:
    """
    The old bank stays, and what is there already is not overwritten unasked.
    """
    before = snapshot(fitted_bank)
    other = Fitted(id=sha("other"))
    with_judgement(fitted_bank, other, new_version="7", out=tmp_path / "next")

    assert snapshot(fitted_bank) == before
    assert load_bank(tmp_path / "next").manifest.version == "7"
    with pytest.raises(BankInvalid, match="is there already"):
        with_judgement(fitted_bank, other, out=tmp_path / "next")
    assert with_judgement(fitted_bank, other, out=tmp_path / "next", replace=True).manifest.version == "3"


def test_vectors_are_copied_where_they_cannot_be_linked(
    fitted_bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    On another file system the release is made all the same.
    """

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with_judgement(fitted_bank, Fitted(), out=tmp_path / "next")

    assert snapshot(tmp_path / "next")["vectors.safetensors"] == snapshot(fitted_bank)["vectors.safetensors"]


@pytest.mark.parametrize(
    ("fitted", "fault", "message"),
    [
        (Fitted(files={"judgement.json": b""}), ValueError, r"has files \['judgement.json'\], expected"),
        (Fitted(id="short"), ValidationError, "id"),
        (Fitted(version="no name"), ValidationError, "version"),
    ],
)
def test_a_wrong_judgement_changes_nothing(
    fitted_bank: Path, fitted: Fitted, fault: type[Exception], message: str
) -> None:
    """
    It is refused, and no half-made folder is left.
    """
    before, beside = snapshot(fitted_bank), sorted(fitted_bank.parent.iterdir())

    with pytest.raises(fault, match=message):
        with_judgement(fitted_bank, fitted)
    assert snapshot(fitted_bank) == before
    assert sorted(fitted_bank.parent.iterdir()) == beside


def test_another_judgement_needs_another_version(fitted_bank: Path) -> None:
    """
    Two banks of one name and version would be told apart by nobody.
    """
    with pytest.raises(BankInvalid, match="has version 2 already"):
        with_judgement(fitted_bank, Fitted(), new_version="2")


@pytest.mark.parametrize("name", ["judgement.json", "heads.safetensors"])
def test_a_flipped_byte_of_a_judgement_is_named(fitted_bank: Path, name: str) -> None:
    """
    By file, and before anything reads it; verify says the same.
    """
    content = bytearray((fitted_bank / name).read_bytes())
    content[0] ^= 1
    (fitted_bank / name).write_bytes(bytes(content))

    with pytest.raises(BankInvalid, match=f"{name} has sha256 .*, expected"):
        load_bank(fitted_bank)
    [finding] = verify_bank(fitted_bank, open_bank=_never).findings
    assert name in finding.message


def test_a_missing_judgement_is_named(fitted_bank: Path) -> None:
    """
    A manifest that names files that are not there is refused.
    """
    (fitted_bank / "judgement.json").unlink()

    with pytest.raises(BankInvalid, match=r"judgement\.json cannot be read"):
        load_bank(fitted_bank)


def test_adding_drops_a_judgement_that_nobody_fits_again(fitted_bank: Path, tmp_path: Path) -> None:
    """
    It was fitted to other references: the new version has none, and the report says so.
    """
    report = add_to_small(fitted_bank, more_fakes(tmp_path))

    assert report.judgement_dropped
    assert load_bank(fitted_bank).manifest.judgement is None
    assert not (fitted_bank / "judgement.json").exists()


def test_adding_fits_again_in_the_same_step(fitted_bank: Path, tmp_path: Path) -> None:
    """
    One version on, with the judgement that was fitted to the new references, while the old bank was still in place.
    """
    seen: list[tuple[int, str]] = []

    def refit(bank: StoredBank, progress: Progress) -> Fitted:
        progress("fitting", 1, 1)
        seen.append((len(bank.references()), load_bank(fitted_bank).manifest.version))
        return Fitted(id=sha("again"), files={"judgement.json": b"{}", "heads.safetensors": b"new"})

    report = add_to_small(fitted_bank, more_fakes(tmp_path), refit=refit)
    loaded = load_bank(fitted_bank)

    assert seen == [(12, "2")]
    assert not report.judgement_dropped
    assert loaded.manifest.judgement is not None
    assert (loaded.manifest.version, loaded.manifest.judgement.id) == ("3", sha("again"))
    assert report.bank.manifest_sha256 == loaded.manifest_sha256
    assert loaded.sizes[GENERATED] == 6
    assert (fitted_bank / "heads.safetensors").read_bytes() == b"new"


def test_a_bank_without_a_judgement_gets_none(tmp_path: Path) -> None:
    """
    Adding fits again only what was fitted before.
    """

    def refit(_bank: StoredBank, _progress: Progress) -> Fitted:
        raise AssertionError("nobody asked for a judgement")

    build_small(a_source(tmp_path / "source"), tmp_path / "bank")
    report = add_to_small(tmp_path / "bank", more_fakes(tmp_path), refit=refit)

    assert report.bank.manifest.judgement is None
    assert not report.judgement_dropped


def test_a_fit_that_fails_leaves_the_old_bank_and_loses_no_work(fitted_bank: Path, tmp_path: Path) -> None:
    """
    The bank and its judgement stay as they were; the next attempt embeds nothing again.
    """

    def refit(_bank: StoredBank, _progress: Progress) -> Fitted:
        raise BankInvalid("too few reals for the asked alpha")

    before, more = snapshot(fitted_bank), more_fakes(tmp_path)
    with pytest.raises(BankInvalid, match="too few reals"):
        add_to_small(fitted_bank, more, refit=refit)
    assert snapshot(fitted_bank) == before

    encoder = FakeEncoder()
    report = add_to_small(fitted_bank, more, fake_embedder(encoder), refit=lambda *_: Fitted())

    assert (report.added, report.reused) == (2, 2)
    assert encoder.encoded == 1  # the probe
    assert load_bank(fitted_bank).manifest.judgement is not None


def test_replacing_never_shows_half_a_bank(fitted_bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A fault just before the exchange leaves the old release whole, and one that can be made again.
    """

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "the disk is gone")

    before = snapshot(fitted_bank)
    with monkeypatch.context() as patched:
        patched.setattr("worker.bank.release.put_in_place", fail)
        with pytest.raises(CannotStart, match="the disk is gone"):
            with_judgement(fitted_bank, Fitted(id=sha("next")))

    assert snapshot(fitted_bank) == before
    assert with_judgement(fitted_bank, Fitted(id=sha("next"))).manifest.version == "3"


def _never(_stored: StoredBank) -> Bank:
    raise AssertionError("what is damaged is not searched")
