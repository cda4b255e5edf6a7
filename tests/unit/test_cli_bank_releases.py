"""
The commands on releases: what they print, how they end, and what they leave in the place.
"""

from pathlib import Path

import pytest

from tests.bank_builders import write_pictures
from tests.cli_bank_rig import bank_command
from tests.command_line import Touchstone
from tests.release_worlds import small_banks


@pytest.fixture
def touchstone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    ``touchstone bank ...``.
    """
    return bank_command(monkeypatch, capsys, tmp_path)


@pytest.fixture
def place(touchstone: Touchstone, tmp_path: Path) -> Path:
    """
    Releases 1 and 2, both published by command.
    """
    for bank in small_banks(tmp_path):
        assert touchstone("publish", bank, "--to", tmp_path / "place").code == 0
    return tmp_path / "place"


def test_the_life_of_a_release(touchstone: Touchstone, place: Path) -> None:
    """
    Listed, activated, changed and rolled back; each command's object says what holds then.
    """
    before = touchstone("releases", place, "--json").json
    touchstone("activate", place, "1")
    activated = touchstone("activate", place, "2", "--reason", "the new mill", "--by", "ann", "--json").json
    disabled = touchstone("disable", place, "--generator", "mill", "--json").json
    rolled = touchstone("rollback", place, "--json").json
    after = touchstone("releases", place, "--json").json

    assert (before["active"], [one["release"] for one in before["releases"]]) == (None, ["1", "2"])
    assert (activated["release"], activated["reason"], activated["issued_by"]) == ("2", "the new mill", "ann")
    assert disabled["disabled_generators"] == ["mill"]
    assert (rolled["release"], rolled["disabled_generators"]) == ("1", ["mill"])
    assert after["active"] == rolled
    assert [one["active"] for one in after["releases"]] == [True, False]


def test_people_are_told_in_words(touchstone: Touchstone, place: Path) -> None:
    """
    What happened, what holds, and what the next command is.
    """
    published = touchstone("publish", place.parent / "bank-0", "--to", place, "--release", "again")
    activated = touchstone("activate", place, "again", "--by", "ann", "--reason", "a drill")
    touchstone("disable", place, "--generator", "mill", "--by", "ann", "--reason", "a drill")
    listed = touchstone("releases", place)

    assert f"touchstone bank activate {place} again" in published.out
    assert f"bank small: release again holds in {place}" in activated.out
    assert "by ann: a drill" in listed.out
    assert "disabled generators: mill" in listed.out


def test_canaries_are_embedded_with_the_release(touchstone: Touchstone, place: Path, tmp_path: Path) -> None:
    """
    The list says which releases have some.
    """
    write_pictures(tmp_path / "canaries", "real/a.png", "fake/mill/b.png")
    said = touchstone(
        "publish", tmp_path / "bank-0", "--to", place, "--release", "3", "--canaries", tmp_path / "canaries", "--json"
    ).json
    listed = touchstone("releases", place, "--json").json["releases"]

    assert said["canaries"] is True
    assert {one["release"]: one["canaries"] for one in listed} == {"1": False, "2": False, "3": True}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("activate", "PLACE", "9"), 2, "has no release '9', it has 1, 2"),
        (("rollback", "PLACE"), 2, "no release was active before"),
        (("disable", "PLACE", "--generator", "mill"), 2, "no release is active"),
        (("disable", "PLACE"), 2, "say what to leave out"),
        (("publish", "BANK", "--to", "PLACE"), 2, "has a release 1 already"),
        (("publish", "NOTHING", "--to", "PLACE"), 3, "found no directory"),
    ],
)
def test_what_cannot_be_done(
    touchstone: Touchstone, place: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """
    The message says what was found, and nothing has changed.
    """
    words = {"PLACE": str(place), "BANK": str(place.parent / "bank-0"), "NOTHING": str(place.parent / "nothing")}
    ended = touchstone(*(words.get(word, word) for word in arguments))

    assert (ended.code, said in ended.err) == (code, True), ended.err
    assert not (place / "active.json").exists()


def test_an_active_release_that_is_gone_is_found(touchstone: Touchstone, place: Path) -> None:
    """
    Workers go on, but none could start.
    """
    touchstone("activate", place, "1")
    (place / "1").rename(place.parent / "elsewhere")
    listed = touchstone("releases", place)

    assert listed.code == 1
    assert "release 1 is active and is not there" in listed.out


def test_a_release_that_cannot_be_read_is_found(touchstone: Touchstone, place: Path) -> None:
    """
    It is listed with what is wrong.
    """
    (place / "2" / "manifest.json").write_text("{}")
    listed = touchstone("releases", place, "--json")

    assert listed.code == 1
    assert listed.json["releases"][1]["problem"].startswith("manifest.json: ")
