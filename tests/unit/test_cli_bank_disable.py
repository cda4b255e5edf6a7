"""
``touchstone bank disable`` on a bank of its own, and on the sources of releases: what it writes, shows and refuses.
"""

import json
from pathlib import Path

import pytest

from tests.bank_builders import a_source, build_small
from tests.cli_bank_rig import bank_command
from tests.command_line import Ran, Touchstone
from tests.release_worlds import canaries_of, small_banks
from worker.bank.files import load_bank
from worker.bank.quarantine import read_quarantine


@pytest.fixture
def touchstone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    ``touchstone bank ...`` with a list at ``list.json``.
    """
    run = bank_command(monkeypatch, capsys, tmp_path)
    listed = f"bank.quarantine_path={tmp_path / 'list.json'}"

    def command(*arguments: object) -> Ran:
        return run(*arguments, *(["--set", listed] if arguments[0] in {"disable", "publish"} else []))

    return command


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """
    Six reals, four fakes of mill and three of loom.
    """
    return small_banks(tmp_path, 1)[0]


def test_names_are_put_on_the_list_shown_and_taken_off(touchstone: Touchstone, bank: Path, tmp_path: Path) -> None:
    """
    With who and why; each command says how many references it comes to.
    """
    entry = load_bank(bank).entries.entry(0)
    first = touchstone("disable", bank, "--generator", "loom", "--reason", "mislabelled", "--by", "ann")
    second = touchstone("disable", bank, "--entry", entry.sha256, "--json").json
    shown = touchstone("disable", bank, "--list")
    off = touchstone("disable", bank, "--generator", "loom", "--enable", "--json").json

    assert "3 of 13 references are left out" in first.out
    assert "restart the workers" in first.out
    assert second["references_left_out"] == (3 if entry.generator == "loom" else 4)
    assert f"disabled entry {entry.sha256}, by " in shown.out
    assert "disabled generator loom, by ann, 20" in shown.out
    assert ": mislabelled" in shown.out
    assert [one["name"] for one in off["quarantined"]] == [entry.sha256]
    assert (off["references_left_out"], off["unknown"]) == (1, [])
    assert [one.name for one in read_quarantine(tmp_path / "list.json").quarantined] == [entry.sha256]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--generator", "lom"), 2, "'lom' is not in bank small 1"),
        (("--entry", "0" * 64), 2, "is not in bank small 1"),
        (("--generator", "loom", "--enable"), 2, "'loom' is not disabled in bank small"),
        (("--generator", "loom", "--generator", "mill"), 3, "leaves no reference of label ai_generated"),
        (("--generator", "loom", "--topic"), 2, "--topic announces releases"),
        (("--generator", "loom", "--list"), 2, "say what to leave out"),
        ((), 2, "say what to leave out"),
    ],
)
def test_what_is_refused_writes_nothing(
    touchstone: Touchstone, bank: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    """
    A mistyped name would disable nothing, and an emptied label would keep every worker from starting.
    """
    run = touchstone("disable", bank, *options)

    assert (run.code, said in run.err) == (code, True), run.err
    assert not (bank.parent / "list.json").exists()


def test_without_a_place_for_the_list_nothing_is_disabled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bank: Path
) -> None:
    """
    No worker would read it.
    """
    run = bank_command(monkeypatch, capsys, bank.parent)("disable", bank, "--generator", "loom")

    assert run.code == 2
    assert "bank.quarantine_path is not set" in run.err


def test_a_damaged_list_is_not_written_over(touchstone: Touchstone, bank: Path, tmp_path: Path) -> None:
    """
    It may name much that must not judge: somebody has to mend it.
    """
    touchstone("disable", bank, "--generator", "loom")
    damaged = (tmp_path / "list.json").read_text().replace("loom", "room")
    (tmp_path / "list.json").write_text(damaged)
    run = touchstone("disable", bank, "--generator", "mill")

    assert run.code == 3
    assert "it is damaged" in run.err
    assert (tmp_path / "list.json").read_text() == damaged


def test_publishing_such_a_bank_is_warned_of(touchstone: Touchstone, bank: Path, tmp_path: Path) -> None:
    """
    A release has all references, and does not ask the list.
    """
    before = touchstone("publish", bank, "--to", tmp_path / "place")
    touchstone("disable", bank, "--generator", "loom")
    after = touchstone("publish", bank, "--to", tmp_path / "place", "--release", "2")

    assert "warning" not in before.err
    assert "the release has 3 references that" in after.err
    assert (before.code, after.code) == (0, 0)


def test_sources_of_releases_are_disabled_too(touchstone: Touchstone, tmp_path: Path) -> None:
    """
    By the same command; it is in the record that the workers follow, and in its list.
    """
    source = a_source(tmp_path / "source")
    rows = [(f"real/{at:03d}.png", "real", "good" if at else "poisoned") for at in range(6)]
    rows += [(f"fake/mill/{at:03d}.png", "ai_generated", "good") for at in range(4)]
    (source / "all.csv").write_text("path,label,source\n" + "".join(f"{','.join(row)}\n" for row in rows))
    bank = build_small(source / "all.csv", tmp_path / "bank").path
    place = tmp_path / "place"
    touchstone("publish", bank, "--to", place)
    nothing = touchstone("disable", place, "--list")
    touchstone("activate", place, "1")
    refused = touchstone("disable", place, "--source", "nobody")
    touchstone("disable", place, "--source", "poisoned")
    shown = touchstone("disable", place, "--list", "--json").json

    assert (nothing.code, refused.code) == (2, 2)
    assert shown["disabled_sources"] == ["poisoned"]
    assert json.loads((place / "active.json").read_text())["disabled_sources"] == ["poisoned"]


@pytest.mark.parametrize("options", [("--reason", "r" * 513), ("--by", "b" * 129), ("--by", "a\tb")])
@pytest.mark.parametrize("where", ["bank", "place"])
def test_words_that_nothing_can_keep_are_wrong_options(
    touchstone: Touchstone, bank: Path, tmp_path: Path, options: tuple[str, str], where: str
) -> None:
    """
    Of a bank and of releases; nothing is written.
    """
    place = tmp_path / "place"
    touchstone("publish", bank, "--to", place)
    touchstone("activate", place, "1")
    before = sorted(tmp_path.rglob("*.json"))
    run = touchstone("disable", bank if where == "bank" else place, "--generator", "loom", *options)

    assert 2 == run.code
    assert f"{options[0]} " in run.err
    assert before == sorted(tmp_path.rglob("*.json"))


def test_a_lost_mount_begins_no_new_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bank: Path, tmp_path: Path
) -> None:
    """
    Nor is it shown as a list of nothing; where the folder is there and the list is not, a new one is warned of.
    """
    run = bank_command(monkeypatch, capsys, tmp_path)
    there = "--set", f"bank.quarantine_path={tmp_path / 'mount' / 'list.json'}"
    ended = [run("disable", bank, *what, *there) for what in (("--list",), ("--generator", "loom"))]
    (tmp_path / "mount").mkdir()
    first, second = (run("disable", bank, "--generator", name, *there) for name in ("loom", "loom"))

    assert [3, 3, 0] == [one.code for one in (*ended, first)]
    assert ["is not there: where it is a mount that was lost" in one.err for one in ended] == [True, True]
    assert ["a new list was begun" in one.err for one in (first, second)] == [True, False]


def test_canaries_of_the_bank_are_spoken_of(touchstone: Touchstone, bank: Path, tmp_path: Path) -> None:
    """
    Whoever disables knows that a restart tries them, and which command does so before.
    """
    without = touchstone("disable", bank, "--generator", "loom")
    for name, path in canaries_of(bank, tmp_path).items():
        (bank / name).write_bytes(path.read_bytes())
    with_some = touchstone("disable", bank, "--generator", "loom")
    as_json = touchstone("disable", bank, "--generator", "loom", "--json")

    assert ["`touchstone doctor` tries both now" in run.out for run in (without, with_some, as_json)] == [
        False,
        True,
        False,
    ]
    assert "`touchstone doctor` tries both now" in as_json.err
    assert 3 == as_json.json["references_left_out"]


def test_a_list_of_releases_that_nobody_vouches_for_is_warned_of(
    touchstone: Touchstone, bank: Path, tmp_path: Path
) -> None:
    """
    What is shown is not what workers follow.
    """
    public = touchstone("keygen", tmp_path / "key.pem", "--json").json["public_key"]
    place, trusting = tmp_path / "place", ("--set", f'bank.trusted_keys=["{public}"]')
    touchstone("sign", bank, "--key", tmp_path / "key.pem")
    touchstone("publish", bank, "--to", place)
    touchstone("activate", place, "1", "--key", tmp_path / "key.pem", *trusting)
    right = touchstone("disable", place, "--list", *trusting)
    touchstone("disable", place, "--generator", "loom")
    forged = touchstone("disable", place, "--list", "--json", *trusting)

    assert (0, 1) == (right.code, forged.code)
    assert "warning" not in right.err
    assert "warning: no worker follows this: " in forged.err
    assert "is signed by nobody" in forged.err
    assert ["loom"] == forged.json["disabled_generators"]
