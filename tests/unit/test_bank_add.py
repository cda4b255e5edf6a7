"""
Adding to a bank: a new version, whole, or none at all.
"""

import shutil
from pathlib import Path

import pytest

from tests.bank_builders import GENERATED, REAL, a_source, add_to_small, build_small, snapshot, write_pictures
from tests.fake_encoder import FakeEncoder, fake_embedder
from worker.bank.files import load_bank
from worker.bank.release import next_version
from worker.errors import BankInvalid


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Parts of three references, so that a few pictures make several.
    """
    monkeypatch.setattr("worker.bank.embedding.PART", 3)


def test_adding_makes_a_new_version_in_place(tmp_path: Path) -> None:
    """
    Old references stay as they were, new ones follow, and what is there already is not taken twice.
    """
    source = a_source(tmp_path / "source")
    before = build_small(source, tmp_path / "bank").bank
    write_pictures(source, "fake/loom/a.png", "fake/loom/b.png", first_seed=500)
    report = add_to_small(tmp_path / "bank", source)
    after = load_bank(tmp_path / "bank")

    assert (report.added, len(report.duplicates)) == (2, 10)
    assert (after.manifest.version, after.sizes) == ("2", {REAL: 6, GENERATED: 6})
    assert list(after.entries)[:10] == list(before.entries)
    assert after.vectors[:10].tobytes() == before.vectors.tobytes()
    assert after.probe.tobytes() == before.probe.tobytes()
    assert [one.added for one in after.manifest.sources] == [10, 2]
    assert after.manifest_sha256 != before.manifest_sha256


def test_adding_elsewhere_leaves_the_old_bank(tmp_path: Path) -> None:
    """
    With its own version, and refusing to overwrite.
    """
    build_small(a_source(tmp_path / "source"), tmp_path / "bank")
    before = snapshot(tmp_path / "bank")
    more = tmp_path / "more"
    write_pictures(more, "real/new.png", first_seed=700)
    add_to_small(tmp_path / "bank", more, out=tmp_path / "next", version="2.0-rc")

    assert snapshot(tmp_path / "bank") == before
    assert load_bank(tmp_path / "next").manifest.version == "2.0-rc"
    with pytest.raises(BankInvalid, match="is there already"):
        add_to_small(tmp_path / "bank", more, out=tmp_path / "next")


def test_adding_with_another_encoder_is_refused(tmp_path: Path) -> None:
    """
    Its vectors would be noise among the others; the bank stays as it is.
    """
    source = a_source(tmp_path / "source")
    build_small(source, tmp_path / "bank")
    before = snapshot(tmp_path / "bank")
    write_pictures(source, "real/new.png", first_seed=700)

    with pytest.raises(BankInvalid, match="built by another encoder: weights"):
        add_to_small(tmp_path / "bank", source, fake_embedder(FakeEncoder(weights=2)))
    assert snapshot(tmp_path / "bank") == before


def test_adding_a_contradiction_is_refused(tmp_path: Path) -> None:
    """
    The bank says real, the source says generated: both are named.
    """
    source = a_source(tmp_path / "source")
    build_small(source, tmp_path / "bank")
    more = tmp_path / "more/fake/x.png"
    more.parent.mkdir(parents=True)
    shutil.copy(source / "real/000.png", more)

    with pytest.raises(BankInvalid, match=r"entry [0-9a-f]{16} of the bank is real and fake/x\.png is ai_generated"):
        add_to_small(tmp_path / "bank", tmp_path / "more")


def test_adding_nothing_new_is_refused(tmp_path: Path) -> None:
    """
    A new version that holds the same would only change every verdict's id.
    """
    source = a_source(tmp_path / "source")
    build_small(source, tmp_path / "bank")

    with pytest.raises(BankInvalid, match="nothing new"):
        add_to_small(tmp_path / "bank", source)


def test_a_changed_bank_needs_another_version(tmp_path: Path) -> None:
    """
    Two banks of one name and version would be told apart by nobody.
    """
    source = a_source(tmp_path / "source")
    build_small(source, tmp_path / "bank", version="beta")

    with pytest.raises(BankInvalid, match="has version beta already"):
        add_to_small(tmp_path / "bank", source, version="beta")
    with pytest.raises(BankInvalid, match="does not end in a number"):
        add_to_small(tmp_path / "bank", source)


@pytest.mark.parametrize(
    ("version", "expected"), [("1", "2"), ("9", "10"), ("2026.11.3", "2026.11.4"), ("v09", "v10"), ("a1b2", "a1b3")]
)
def test_the_next_version(version: str, expected: str) -> None:
    """
    The last number plus one, keeping its width.
    """
    assert next_version(version) == expected
