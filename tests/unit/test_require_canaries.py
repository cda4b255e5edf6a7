"""
``bank.require_canaries``: what has no canaries is not used, by whoever would use it.
"""

import shutil
from pathlib import Path

import pytest

from tests.cli_bank_rig import bank_command
from tests.release_worlds import BY, WatchedPlace, canaries_of, small_banks
from worker.errors import BankInvalid, CannotStart
from worker.instruments import open_instruments

WORDS = "has no canaries, and bank.require_canaries is true"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WatchedPlace:
    """
    Canaries are required; the active release, c, has some, and 1 and 2 have none.
    """
    made = WatchedPlace(tmp_path, monkeypatch, require_canaries=True)
    made.releases.publish(made.banks[1], "c", canaries=canaries_of(made.banks[1], tmp_path))
    made.releases.activate("c", BY)
    return made


def test_a_running_worker_refuses_a_release_without(place: WatchedPlace) -> None:
    """
    Whether none were published, or whoever wrote the pointer dropped them.
    """
    watch = place.watch()
    dropped = place.announced(canaries_sha256=None)
    told = []
    for control in (place.releases.activate("2", BY), dropped):
        watch.follow(control)
        told.append(WORDS in (watch.status().last_refusal or ""))

    assert [True, True] == told
    assert "c" == watch.status().release


def test_disabling_goes_on(place: WatchedPlace) -> None:
    """
    The release in use has some.
    """
    watch = place.watch()
    watch.follow(place.releases.disable(BY, generators=frozenset({"loom"})))

    assert 1 == watch.status().disabled_generators


def test_no_worker_starts_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    From a place of releases, or from one bank.
    """
    place = WatchedPlace(tmp_path, monkeypatch, require_canaries=True)
    with pytest.raises(CannotStart, match=WORDS):
        place.open()
    own = place.settings.bank.model_copy(update={"releases": None, "path": place.banks[0]})
    with pytest.raises(BankInvalid, match=WORDS):
        open_instruments(place.settings.model_copy(update={"bank": own}), place.recorder)
    for name, path in canaries_of(place.banks[0], tmp_path).items():
        shutil.copyfile(path, place.banks[0] / name)

    opened = open_instruments(place.settings.model_copy(update={"bank": own}), place.recorder)
    assert "1" == opened.bank.identity.version


def test_none_is_published_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    No worker would use it; the command says what is missing.
    """
    touchstone = bank_command(monkeypatch, capsys, tmp_path)
    (bank,) = small_banks(tmp_path, 1)
    said = touchstone("publish", bank, "--to", tmp_path / "place", "--set", "bank.require_canaries=true")

    assert 2 == said.code
    assert "pass --canaries" in said.err
    assert not (tmp_path / "place").exists()


def test_the_place_is_asked_by_the_settings_alone(place: WatchedPlace) -> None:
    """
    What is published stays usable for workers that want no canaries.
    """
    free = place.settings.bank.model_copy(update={"require_canaries": False})
    place.settings = place.settings.model_copy(update={"bank": free})
    place.releases.activate("2", BY)

    assert "2" == place.watch().status().release
