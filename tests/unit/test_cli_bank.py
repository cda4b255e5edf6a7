"""
``touchstone bank``: what it prints, for people and for machines, and its exit codes.
"""

from pathlib import Path

import pytest

from tests.bank_builders import a_source, write_pictures
from tests.cli_bank_rig import bank_command
from tests.command_line import Touchstone
from tests.fake_encoder import FakeEncoder, fake_embedder
from worker.bank.files import load_bank


@pytest.fixture
def touchstone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    Runs ``touchstone bank ...`` below ``tmp_path``.
    """
    return bank_command(monkeypatch, capsys, tmp_path)


def test_build_for_people(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    What was made, and everything that was left out, on one screen.
    """
    source = a_source(tmp_path / "source", reals=20)
    (source / "real/broken.jpg").write_bytes(b"no picture")
    (source / "real/copy.png").write_bytes((source / "real/000.png").read_bytes())
    (source / "notes.txt").write_text("x")
    ran = touchstone("build", source, "--out", "bank")

    assert ran.code == 0
    assert "bank bank 1 at" in ran.out
    assert "24 references (4 ai_generated, 20 real)" in ran.out
    assert "real/broken.jpg: FORMAT_UNSUPPORTED" in ran.out
    assert "real/copy.png is real/000.png" in ran.out
    assert "1 files are no images by their ending" in ran.out


def test_build_for_machines(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    One object, with the hash that verdicts will carry.
    """
    ran = touchstone(
        "build", a_source(tmp_path / "source"), "--out", "b", "--id", "origins", "--version", "2026.1", "--json"
    )
    built = load_bank(tmp_path / "b")

    assert ran.code == 0
    assert (ran.json["id"], ran.json["version"]) == ("origins", "2026.1")
    assert ran.json["manifest_sha256"] == built.manifest_sha256
    assert ran.json["counts"]["per_label"] == {"ai_generated": 4, "real": 6}
    assert (ran.json["added"], ran.json["reused"], ran.json["skipped"], ran.json["duplicates"]) == (10, 0, [], [])


def test_too_many_skipped_exits_1(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    Without a bank, and with every skipped image named.
    """
    source = a_source(tmp_path / "source")
    (source / "real/words.png").write_bytes(b"words")
    plain = touchstone("build", source, "--out", "bank", "--max-skipped", "0")
    machine = touchstone("build", source, "--out", "bank", "--max-skipped", "0", "--json")

    assert (plain.code, machine.code) == (1, 1)
    assert "real/words.png: FORMAT_UNSUPPORTED" in plain.out
    assert "allowed are 0%" in plain.err
    assert machine.json["path"] is None
    assert [one["name"] for one in machine.json["skipped"]] == ["real/words.png"]
    assert not (tmp_path / "bank").exists()


def test_an_existing_bank_exits_3_without_replace(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    And is replaced with it.
    """
    source = a_source(tmp_path / "source")
    touchstone("build", source, "--out", "bank")
    refused = touchstone("build", source, "--out", "bank", "--version", "2")
    replaced = touchstone("build", source, "--out", "bank", "--version", "2", "--replace")

    assert (refused.code, replaced.code) == (3, 0)
    assert "--replace" in refused.err
    assert load_bank(tmp_path / "bank").manifest.version == "2"


def test_a_question_of_ones_own(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    Labels are data: cats and dogs are asked by the same worker.
    """
    write_pictures(tmp_path / "pets", "cat/a.png", "dog/b.png", "hound/c.png")
    ran = touchstone(
        "build", "pets", "--out", "b", "--labels", "cat, dog", "--positive", "dog", "--label-map", "hound=dog"
    )

    assert ran.code == 0
    assert load_bank(tmp_path / "b").manifest.question.model_dump() == {"labels": ("cat", "dog"), "positive": "dog"}
    assert load_bank(tmp_path / "b").sizes == {"cat": 1, "dog": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "a,b"], "needs --positive"),
        (["--positive", "c"], "positive is 'c', expected one of real, ai_generated"),
        (["--labels", "a,a", "--positive", "a"], "must differ"),
        (["--label-map", "x"], "expected NAME=LABEL"),
        (["--id", "a b"], "the bank's id is 'a b'"),
        (["--max-skipped", "2"], "2.0 is not in the range"),
    ],
)
def test_a_wrong_command_line_exits_2(touchstone: Touchstone, tmp_path: Path, options: list[str], message: str) -> None:
    """
    Before any encoder is loaded.
    """
    ran = touchstone("build", a_source(tmp_path / "source"), "--out", "bank", *options)

    assert ran.code == 2
    assert message in ran.err


def test_add(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    In place and one version on; nothing new is refused.
    """
    source = a_source(tmp_path / "source")
    touchstone("build", source, "--out", "bank")
    write_pictures(source, "real/new.png", first_seed=900)
    ran = touchstone("add", "bank", source, "--json")
    again = touchstone("add", "bank", source)

    assert (ran.code, again.code) == (0, 3)
    assert (ran.json["version"], ran.json["added"], len(ran.json["duplicates"])) == ("2", 1, 10)
    assert "nothing new" in again.err


def test_add_speaks_the_banks_question(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    Its labels need not be said again.
    """
    write_pictures(tmp_path / "pets", "cat/a.png", "dog/b.png")
    touchstone("build", "pets", "--out", "b", "--labels", "cat,dog", "--positive", "dog")
    write_pictures(tmp_path / "more", "cat/c.png", first_seed=10)

    assert touchstone("add", "b", "more", "--out", "c", "--version", "next").code == 0
    assert load_bank(tmp_path / "c").sizes == {"cat": 2, "dog": 1}
    assert load_bank(tmp_path / "b").sizes == {"cat": 1, "dog": 1}


def test_inspect(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    For people lines and warnings, for machines the same as an object.
    """
    write_pictures(tmp_path / "source", "real/a.jpg", "real/b.jpg", "fake/mill/c.png")
    touchstone("build", "source", "--out", "bank")
    ran, machine = touchstone("inspect", "bank"), touchstone("inspect", "bank", "--json")

    assert (ran.code, machine.code) == (0, 0)
    assert "question real / ai_generated, score speaks of ai_generated" in ran.out
    assert "real: 2 references\n  generators  -\n  formats     JPEG 2\n" in ran.out
    assert "warning: the format of the files alone" in ran.out
    assert "views global, 4 native crops, realism, perturbation, " in ran.out
    assert "judgement none fitted" in ran.out
    assert machine.json["giveaways"]["format"] == 1.0
    assert machine.json["labels"]["real"]["formats"] == {"JPEG": 2}
    assert machine.json["manifest"]["counts"]["entries"] == 3


def test_verify_a_sound_bank(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    Exit code 0, with what was checked.
    """
    touchstone("build", a_source(tmp_path / "source"), "--out", "bank")
    ran, machine = touchstone("verify", "bank"), touchstone("verify", "bank", "--no-encoder", "--json")

    assert (ran.code, machine.code) == (0, 0)
    assert "bank is sound: files, repeated references, near duplicates, index, native index, probe" in ran.out
    assert (machine.json["sound"], machine.json["findings"], machine.json["recall"]) == (True, [], 1.0)
    assert "probe" not in machine.json["checks"]


def test_verify_a_damaged_bank(touchstone: Touchstone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Exit code 1, one line per finding.
    """
    touchstone("build", a_source(tmp_path / "source"), "--out", "bank")
    monkeypatch.setattr(
        "worker.cli.embedders.embedder_opener",
        lambda _settings: lambda views: fake_embedder(FakeEncoder(weights=2), views=views),
    )
    misfit = touchstone("verify", "bank")
    (tmp_path / "bank/probe.png").write_bytes(b"")
    damaged = touchstone("verify", "bank", "--json")

    assert (misfit.code, damaged.code) == (1, 1)
    assert misfit.out.startswith("probe: bank bank 1 was built by another encoder: weights")
    assert damaged.json["sound"] is False
    assert [finding["check"] for finding in damaged.json["findings"]] == ["files"]


def test_verify_searches_through_the_configured_index(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    The settings say which; a bank as small as this is exact through any.
    """
    touchstone("build", a_source(tmp_path / "source"), "--out", "bank")
    ran = touchstone("verify", "bank", "--no-encoder", "--set", "bank.index=hnsw", "--json")

    assert (ran.code, ran.json["recall"]) == (0, 1.0)


@pytest.mark.parametrize("command", ["inspect", "add"])
def test_no_bank_exits_3(touchstone: Touchstone, tmp_path: Path, command: str) -> None:
    """
    Saying how to make one.
    """
    more = [a_source(tmp_path / "source")] if command == "add" else []
    ran = touchstone(command, "nowhere", *more)

    assert ran.code == 3
    assert "touchstone bank build" in ran.err


def test_names_cannot_write_to_the_terminal(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    A file may be called anything, also an escape sequence or markup.
    """
    source = a_source(tmp_path / "source", reals=20)
    (source / "real/\x1b[31m[red]evil.png").write_bytes(b"x")
    ran = touchstone("build", source, "--out", "bank")

    assert ran.code == 0
    assert "\x1b[31m" not in ran.out
    assert "[red]evil.png: FORMAT_UNSUPPORTED" in ran.out
