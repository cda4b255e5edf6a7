"""
Building a bank: what gets in, what is said of the rest, and that the target is never half there.
"""

import hashlib
import os
import shutil
import stat
from pathlib import Path

import pytest
from PIL import Image

from schemas.errors import ErrorCode
from tests.bank_builders import GENERATED, NOON, REAL, a_picture, a_source, build_small, snapshot, write_pictures
from tests.fake_encoder import FakeEncoder, fake_decoder, fake_embedder
from worker.bank.assemble import TooManySkipped
from worker.bank.build import AddPlan, BuildPlan, build_bank
from worker.bank.files import load_bank
from worker.bank.manifest import GENERATED as SHIPPED_QUESTION
from worker.bank.sources import list_source
from worker.domain import ContentHash, Embedding
from worker.errors import EXIT_FOUND, BankInvalid, ConfigInvalid


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Parts of three references, so that a few pictures make several.
    """
    monkeypatch.setattr("worker.bank.embedding.PART", 3)


def test_a_bank_holds_what_the_folder_holds(tmp_path: Path) -> None:
    """
    Each reference with its label, generator, facts and the embedding that the encoder gives its picture.
    """
    source = a_source(tmp_path / "source")
    report = build_small(source, tmp_path / "bank")
    bank = load_bank(tmp_path / "bank")
    rows = {entry.sha256: row for row, entry in enumerate(bank.entries)}
    data = (source / "fake/mill/002.png").read_bytes()
    row = rows[hashlib.sha256(data).hexdigest()]
    entry = bank.entries.entry(row)
    decoded = fake_decoder().decode(data, ContentHash(entry.sha256))
    expected = Embedding.from_features(FakeEncoder().encode([decoded.pixels])[0]).as_half()

    assert (report.added, report.reused, report.skipped, report.duplicates) == (10, 0, (), ())
    assert bank.sizes == {REAL: 6, GENERATED: 4}
    assert (entry.id, entry.label, entry.generator) == (entry.sha256[:16], GENERATED, "mill")
    assert (entry.format, entry.width, entry.height, entry.byte_length) == ("PNG", 48, 40, len(data))
    assert bank.vectors[row].tobytes() == expected.tobytes()


def test_the_manifest_says_where_it_comes_from(tmp_path: Path) -> None:
    """
    Encoder, preprocessing, sources and time.
    """
    manifest = build_small(a_source(tmp_path / "source"), tmp_path / "bank", version="2026.1").bank.manifest
    fingerprint = FakeEncoder().fingerprint

    assert (manifest.id, manifest.version, manifest.created_at) == ("small", "2026.1", NOON)
    assert (manifest.encoder.id, manifest.encoder.space) == (fingerprint.id, fingerprint.space)
    assert manifest.preprocess.sha256 == fingerprint.preprocess.sha256
    assert [(one.kind, one.name, one.listed, one.added) for one in manifest.sources] == [("folder", "source", 10, 10)]


def test_the_same_references_make_the_same_bank(tmp_path: Path) -> None:
    """
    Byte for byte, whatever the batches.
    """
    source = a_source(tmp_path / "source")
    build_small(source, tmp_path / "one", fake_embedder(batch_size=1))
    build_small(source, tmp_path / "two", fake_embedder(batch_size=7))

    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


def test_nothing_is_left_beside_the_bank(tmp_path: Path) -> None:
    """
    The workshop is cleared away.
    """
    build_small(a_source(tmp_path / "source"), tmp_path / "deep/er/bank")

    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["bank"]
    assert sorted(path.name for path in (tmp_path / "deep/er/bank").iterdir()) == [
        "entries.jsonl",
        "manifest.json",
        "manifest.sha256",
        "probe.png",
        "vectors.safetensors",
    ]


def test_pictures_are_encoded_in_batches(tmp_path: Path) -> None:
    """
    No larger than asked for.
    """
    encoder = FakeEncoder()
    build_small(a_source(tmp_path / "source"), tmp_path / "bank", fake_embedder(encoder, batch_size=2))

    assert encoder.batches == [1, 2, 1, 2, 1, 2, 1, 1]  # the probe, then three parts of three and one of one


def test_an_existing_target_is_left_alone(tmp_path: Path) -> None:
    """
    Before any work, and whatever it is.
    """
    (tmp_path / "bank").mkdir()
    encoder = FakeEncoder()

    with pytest.raises(BankInvalid, match=r"is there already.*--replace"):
        build_small(a_source(tmp_path / "source"), tmp_path / "bank", fake_embedder(encoder))
    assert encoder.encoded == 0


def test_an_existing_target_is_replaced_when_asked(tmp_path: Path) -> None:
    """
    By the new bank, whole.
    """
    build_small(a_source(tmp_path / "source"), tmp_path / "bank")
    build_small(a_source(tmp_path / "other", reals=2, fakes=3), tmp_path / "bank", replace=True)

    assert load_bank(tmp_path / "bank").sizes == {REAL: 2, GENERATED: 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank", "other", "source"]


def test_what_is_no_bank_is_never_replaced(tmp_path: Path) -> None:
    """
    A directory of somebody's own keeps all that is in it, whatever is asked; so does the source itself.
    """
    source = a_source(tmp_path / "source")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("kept")

    for target in (tmp_path / "precious", source):
        with pytest.raises(BankInvalid, match="is no bank"):
            build_small(source, target, replace=True)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "kept"
    assert len(list_source(source, SHIPPED_QUESTION).references) == 10


def test_a_link_to_a_bank_goes_on_naming_it(tmp_path: Path) -> None:
    """
    Replacing through a link replaces what it names, and leaves the link.
    """
    build_small(a_source(tmp_path / "source"), tmp_path / "bank-1")
    (tmp_path / "bank").symlink_to("bank-1")
    build_small(a_source(tmp_path / "more", reals=3, fakes=3), tmp_path / "bank", replace=True)

    assert (tmp_path / "bank").is_symlink()
    assert len(load_bank(tmp_path / "bank-1").entries) == 6


def test_a_bank_can_be_read_by_the_user_of_a_worker(tmp_path: Path) -> None:
    """
    Every file of a bank may be read by others: containers run as users of their own.
    """
    build_small(a_source(tmp_path / "source"), tmp_path / "bank")

    assert {file.name for file in (tmp_path / "bank").iterdir() if not file.stat().st_mode & stat.S_IROTH} == set()


def test_a_pipe_among_the_pictures_is_named_and_not_waited_for(tmp_path: Path) -> None:
    """
    What is no regular file is skipped with its code.
    """
    source = a_source(tmp_path / "source", reals=20)
    os.mkfifo(source / "real" / "pipe.png")
    report = build_small(source, tmp_path / "bank")

    assert [skipped.code for skipped in report.skipped] == [ErrorCode.REF_FORBIDDEN]


def test_undecodable_images_are_skipped_and_named(tmp_path: Path) -> None:
    """
    Each with its stable code; the rest become a bank.
    """
    source = a_source(tmp_path / "source", reals=20)
    (source / "real/broken.png").write_bytes(a_picture(99)[:60])
    (source / "real/words.gif").write_bytes(b"no picture at all")
    report = build_small(source, tmp_path / "bank")

    assert {one.name: one.code for one in report.skipped} == {
        "real/broken.png": ErrorCode.DECODE_TRUNCATED,
        "real/words.gif": ErrorCode.FORMAT_UNSUPPORTED,
    }
    assert load_bank(tmp_path / "bank").manifest.counts.entries == 24
    assert report.bank.manifest.sources[0].skipped == 2


def test_too_many_skipped_is_no_bank(tmp_path: Path) -> None:
    """
    Beyond the allowed share nothing is put in place; every skipped image is in the refusal.
    """
    source = a_source(tmp_path / "source", reals=5, fakes=4)
    (source / "real/words.png").write_bytes(b"no picture at all")

    with pytest.raises(TooManySkipped, match=r"1 of 10 .*allowed are 5%.*real/words\.png") as refusal:
        build_small(source, tmp_path / "bank", max_skipped=0.05)
    assert refusal.value.exit_code == EXIT_FOUND
    assert [one.name for one in refusal.value.skipped] == ["real/words.png"]
    assert not (tmp_path / "bank").exists()
    assert build_small(source, tmp_path / "bank", max_skipped=0.1).reused == 9


def test_listed_files_must_be_there_and_be_what_is_claimed(tmp_path: Path) -> None:
    """
    A file that is missing, and one whose bytes are not those listed, are skipped with their codes.
    """
    write_pictures(tmp_path, *(f"{number}.png" for number in range(4)))
    claimed = hashlib.sha256((tmp_path / "1.png").read_bytes()).hexdigest()
    (tmp_path / "list.csv").write_text(
        f"path,label,sha256\n0.png,real,\n1.png,ai_generated,{claimed}\n2.png,real,{'0' * 64}\nmissing.png,real,\n"
    )
    report = build_small(tmp_path / "list.csv", tmp_path / "bank", max_skipped=0.5)

    assert {one.name: one.code for one in report.skipped} == {
        "2.png": ErrorCode.INTEGRITY_MISMATCH,
        "missing.png": ErrorCode.FETCH_NOT_FOUND,
    }
    assert report.added == 2


def test_repeated_bytes_vote_once(tmp_path: Path) -> None:
    """
    And the report says which was taken for which.
    """
    source = a_source(tmp_path / "source")
    shutil.copy(source / "real/000.png", source / "real/zzz.png")
    report = build_small(source, tmp_path / "bank")

    assert report.duplicates == (("real/zzz.png", "real/000.png"),)
    assert report.bank.sizes == {REAL: 6, GENERATED: 4}


def test_contradicting_labels_are_refused_before_any_work(tmp_path: Path) -> None:
    """
    All of them at once, naming both places.
    """
    source = a_source(tmp_path / "source")
    shutil.copy(source / "real/000.png", source / "fake/mill/copy.png")
    shutil.copy(source / "real/001.png", source / "fake/mill/kopie.png")
    encoder = FakeEncoder()

    with pytest.raises(BankInvalid, match="two labels") as refusal:
        build_small(source, tmp_path / "bank", fake_embedder(encoder))
    assert "fake/mill/copy.png is ai_generated and real/000.png is real" in str(refusal.value)
    assert "fake/mill/kopie.png is ai_generated and real/001.png is real" in str(refusal.value)
    assert encoder.encoded == 1  # the probe


def test_every_label_needs_a_reference(tmp_path: Path) -> None:
    """
    A bank of one label cannot be asked anything.
    """
    write_pictures(tmp_path / "source", "real/a.png")

    with pytest.raises(BankInvalid, match="no usable reference of label ai_generated"):
        build_small(tmp_path / "source", tmp_path / "bank")


def test_features_that_are_not_finite_are_skipped(tmp_path: Path) -> None:
    """
    They never become a vector.
    """
    source = a_source(tmp_path / "source")
    Image.new("RGB", (40, 40)).save(source / "real/black.png")
    encoder = FakeEncoder()
    encoder.nan_below = 0.01
    report = build_small(source, tmp_path / "bank", fake_embedder(encoder))

    assert [(one.name, one.code) for one in report.skipped] == [("real/black.png", ErrorCode.ENCODE_NONFINITE)]


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "x" * 65, "a\n"])
def test_ids_and_versions_are_checked_before_any_work(name: str) -> None:
    """
    Not by the manifest at the very end.
    """
    with pytest.raises(ConfigInvalid, match="id is"):
        BuildPlan(id=name)
    with pytest.raises(ConfigInvalid, match="version is"):
        AddPlan(version=name)


def test_progress_is_told(tmp_path: Path) -> None:
    """
    First reading, then embedding, each up to its whole.
    """
    told: list[tuple[str, int, int]] = []
    listing = list_source(a_source(tmp_path / "source"), SHIPPED_QUESTION)
    plan = BuildPlan(id="small", created_at=NOON)
    build_bank(
        listing,
        tmp_path / "bank",
        embedder=fake_embedder(),
        plan=plan,
        progress=lambda what, done, total: told.append((what, done, total)),
    )

    assert [one for one in told if one[0] == "reading"][-1] == ("reading", 10, 10)
    assert [done for what, done, _ in told if what == "embedding"] == [0, 3, 6, 9, 10]
