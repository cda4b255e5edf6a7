"""
``touchstone bank`` about views, balance and judgements: what is asked for on the command line and told of it.
"""

from pathlib import Path

import pytest

from tests.bank_builders import a_source, sha, write_pictures
from tests.cli_bank_rig import bank_command
from tests.command_line import Touchstone
from tests.fake_teacher import FakeTeacher, Fitted
from worker.bank.files import load_bank
from worker.bank.release import with_judgement
from worker.views import GLOBAL_ONLY, ViewSpec


@pytest.fixture
def touchstone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    Runs ``touchstone bank ...`` below ``tmp_path``.
    """
    return bank_command(monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize(
    ("options", "views"),
    [
        ([], ViewSpec(native_crops=4, realism=True, perturbation=True)),
        (["--crops", "0", "--no-realism", "--no-perturbation"], GLOBAL_ONLY),
        (
            ["--crops", "2", "--no-perturbation", "--reencode", "90", "--max-side", "1024"],
            ViewSpec(native_crops=2, realism=True, max_side_px=1024, reencode_quality=90),
        ),
    ],
)
def test_views_are_what_was_asked_for(
    touchstone: Touchstone, tmp_path: Path, options: list[str], views: ViewSpec
) -> None:
    """
    In the manifest, in the report for machines and in ``inspect``.
    """
    ran = touchstone("build", a_source(tmp_path / "source"), "--out", "bank", "--json", *options)

    assert ran.code == 0
    assert load_bank(tmp_path / "bank").views == views
    assert ran.json["views"]["sha256"] == views.sha256
    assert views.sha256[:12] in touchstone("inspect", "bank").out


@pytest.mark.parametrize(
    "options", [["--crops", "-1"], ["--reencode", "0"], ["--reencode", "101"], ["--max-side", "9"]]
)
def test_views_that_cannot_be_made_exit_2(touchstone: Touchstone, tmp_path: Path, options: list[str]) -> None:
    """
    Before any encoder is loaded.
    """
    assert touchstone("build", a_source(tmp_path / "source"), "--out", "bank", *options).code == 2


def test_help_says_what_views_cost(touchstone: Touchstone) -> None:
    """
    In forwards through the encoder.
    """
    said = " ".join(touchstone("build", "--help").out.split())

    assert "each costs one forward through the encoder" in said
    assert "six forwards per picture" in said


def test_balance_is_told(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    Format shares and median short side per label, and what a rule by format alone would reach.
    """
    write_pictures(tmp_path / "source", "real/a.jpg", "real/b.jpg", "real/c.png", "fake/mill/d.png", "fake/mill/e.png")
    ran = touchstone("build", "source", "--out", "bank")
    machine = touchstone("build", "source", "--out", "other", "--json")

    assert "real: JPEG 67%, PNG 33%; median short side 40 px" in ran.out
    assert "ai_generated: PNG 100%; median short side 40 px" in ran.out
    assert "warning: the format of the files alone tells the labels apart with balanced accuracy 0.83" in ran.out
    assert "--reencode QUALITY, which puts both labels through the same JPEG" in ran.out
    assert machine.json["balance"]["real"] == {"formats": {"JPEG": 2 / 3, "PNG": 1 / 3}, "short_side_px": 40}
    assert machine.json["giveaways"]["format"] == pytest.approx(5 / 6)
    assert len(machine.json["warnings"]) == 1


def test_balanced_formats_are_not_warned_of(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    As many JPEG of either label.
    """
    write_pictures(tmp_path / "source", "real/a.jpg", "real/b.png", "fake/mill/d.jpg", "fake/mill/e.png")

    assert "warning" not in touchstone("build", "source", "--out", "bank").out


def test_reencoding_is_not_called_a_cure(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    Both labels go through one JPEG then, but what the first encoding left may outlast it.
    """
    write_pictures(tmp_path / "source", "real/a.jpg", "fake/mill/d.png")
    ran = touchstone("build", "source", "--out", "bank", "--reencode", "85")

    assert "went through one JPEG of quality 85, but marks of the first encoding can outlast it" in ran.out


def test_a_generator_is_taught_from_files(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    Files and folders in one go, as the bank looks at pictures; what is said of them is kept.
    """
    touchstone("build", a_source(tmp_path / "source"), "--out", "bank", "--crops", "1", "--no-perturbation")
    write_pictures(tmp_path / "new", "a.png", "deeper/b.png", "c.jpg", "single.png", first_seed=800)
    (tmp_path / "new/deeper/notes.txt").write_text("no picture")
    kind = ["--label", "ai_generated", "--generator", "Loom 2", "--source", "press", "--licence", "CC0-1.0"]
    ran = touchstone("add", "bank", "new/single.png", "new/deeper", "new/a.png", *kind, "--json")
    bank = load_bank(tmp_path / "bank")
    added = list(bank.entries)[10:]

    assert ran.code == 0
    assert (ran.json["added"], ran.json["ignored"], ran.json["version"], ran.json["teaching"]) == (3, 1, "2", None)
    assert {(one.label, one.generator, one.source, one.licence) for one in added} == {
        ("ai_generated", "Loom 2", "press", "CC0-1.0")
    }
    assert bank.views == ViewSpec(native_crops=1, realism=True)
    assert bank.stored.native_owner.tolist() == list(range(13))
    assert [(one.kind, one.name) for one in bank.manifest.sources] == [
        ("folder", "source"),
        ("files", "single.png and 2 more"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["more", "--label", "cat"], 2, "the label is 'cat', expected one of real, ai_generated"),
        (["more", "--generator", "loom"], 2, "--generator says more of images of one kind; it needs --label"),
        (["more", "--label", "ai_generated", "--generator", " loom"], 2, "the generator is ' loom'; expected 1 to 256"),
        (["more", "--label", "ai_generated", "--generator", "a\nb"], 2, "printable characters"),
        (["more", "--label", "real", "--label-map", "a=real"], 2, "give one of them"),
        (["more", "source"], 2, "2 sources were given without --label"),
        (["nowhere.png", "--label", "real"], 3, "nowhere.png is not there"),
        (["empty", "--label", "real"], 3, "lists no images"),
    ],
)
def test_what_cannot_be_taught_is_refused(
    touchstone: Touchstone, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    """
    In words that say what to write instead, and with the bank as it was.
    """
    touchstone("build", a_source(tmp_path / "source"), "--out", "bank")
    write_pictures(tmp_path / "more", "a.png", first_seed=800)
    (tmp_path / "empty").mkdir()
    ran = touchstone("add", "bank", *arguments)

    assert ran.code == code
    assert message in ran.err
    assert load_bank(tmp_path / "bank").manifest.version == "1"


def a_fitted_bank(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    A bank with a judgement, and beside it two new pictures.
    """
    touchstone("build", a_source(tmp_path / "source"), "--out", "bank", "--crops", "0", "--no-perturbation")
    with_judgement(tmp_path / "bank", Fitted())
    write_pictures(tmp_path / "new", "a.png", "b.png", first_seed=800)


def test_teaching_fits_again_and_tells_what_changed(
    touchstone: Touchstone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The judgement's new id, and the lines of whoever fitted it; as an object for machines.
    """
    a_fitted_bank(touchstone, tmp_path)
    monkeypatch.setattr("worker.cli.bank._teacher", FakeTeacher)
    taught = ["--label", "ai_generated", "--generator", "loom"]
    ran = touchstone("add", "bank", "new/a.png", *taught)
    machine = touchstone("add", "bank", "new/b.png", *taught, "--json")

    assert (ran.code, machine.code) == (0, 0)
    assert f"judgement {sha('of 11')[:12]}, fitted to these references" in ran.out
    assert "loom: recognised 0 % before, 50 % after" in ran.out
    assert machine.json["judgement"]["id"] == sha("of 12")
    assert machine.json["teaching"] == {"recognised": 0.5}
    assert f"judgement {sha('of 12')}, version 9" in touchstone("inspect", "bank").out


def test_teaching_without_a_fit_says_what_to_do(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    The bank has no judgement then, and the command that makes one is named.
    """
    a_fitted_bank(touchstone, tmp_path)
    ran = touchstone("add", "bank", "new", "--label", "ai_generated", "--generator", "loom", "--no-fit")

    assert ran.code == 0
    assert "this version has none; fit one with `touchstone fit" in ran.out
    assert load_bank(tmp_path / "bank").manifest.judgement is None


def test_verify_names_a_damaged_judgement(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    By its file.
    """
    a_fitted_bank(touchstone, tmp_path)
    (tmp_path / "bank/heads.safetensors").write_bytes(b"other numbers")
    ran = touchstone("verify", "bank", "--no-encoder")

    assert ran.code == 1
    assert "heads.safetensors has sha256" in ran.out
