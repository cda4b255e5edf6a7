"""
What ``touchstone doctor`` says of the canaries of the active release, as the worker would judge them.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.doctor_parts import broken, there
from tests.fake_encoder import FakeEncoder
from tests.release_worlds import BY, WatchedPlace, canaries_of
from worker.bank.files import load_bank
from worker.bank.leaving_out import Without
from worker.bank.manifest import CANARY_VECTORS
from worker.bank.quarantine import Quarantine, write_quarantine
from worker.doctor import model
from worker.doctor.finding import Finding, Unanswerable, examine
from worker.doctor.parts import Parts, parts_of
from worker.errors import BankInvalid
from worker.policy import load_policy
from worker.settings.tree import BankSettings


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WatchedPlace:
    """
    A place of releases; 1 is active, which has no canaries.
    """
    return WatchedPlace(tmp_path, monkeypatch)


def activate_with_canaries(place: WatchedPlace, folder: Path, *, wrong: int = 0) -> None:
    """
    Release 3, with five canaries of which so many are expected wrongly, becomes the active one.
    """
    folder.mkdir()
    place.releases.publish(place.banks[1], "3", canaries=canaries_of(place.banks[1], folder, wrong=wrong))
    place.releases.activate("3", BY)


def parts_at(place: WatchedPlace) -> Parts:
    """
    What is found there, with the fake encoder.
    """
    return replace(parts_of(place.settings), encoder=there(FakeEncoder()))


def canaries_at(place: WatchedPlace, parts: Parts | None = None) -> Finding:
    """
    The finding of the check, with advice where it raises.
    """
    made = parts or parts_at(place)
    (check,) = (one for one in model.model_checks(place.settings, made) if one.name == "canaries")
    (found,) = examine([check])
    return found.finding


def test_canaries_that_are_judged_as_expected(place: WatchedPlace, tmp_path: Path) -> None:
    """
    All of them by the active release, which the line names.
    """
    activate_with_canaries(place, tmp_path / "canaries")
    found = canaries_at(place)

    assert ("ok", "release 3: 5 of 5 judged as expected") == (found.status, found.text)


def test_a_miss_fails_as_it_would_keep_the_release_from_being_used(place: WatchedPlace, tmp_path: Path) -> None:
    """
    The canary is named with what was decided, in the words of the refusal, and the command with the configured place.
    """
    activate_with_canaries(place, tmp_path / "canaries", wrong=1)
    found = canaries_at(place)
    refused = place.watch().status().last_refusal

    assert "failed" == found.status
    assert f"release 3: BankInvalid: {found.text}" == refused
    assert "real/000.png (expected ai_generated, " in found.text
    assert "bank.canary_agreement wants 100 %" in found.text
    assert f"touchstone bank rollback {place.root}`" in found.advice


def test_canaries_that_are_wanted_and_missing_fail(place: WatchedPlace) -> None:
    """
    As no worker would start with the release.
    """
    bank = place.settings.bank.model_copy(update={"require_canaries": True})
    place.settings = place.settings.model_copy(update={"bank": bank})
    found = canaries_at(place)

    assert "failed" == found.status
    assert "release 1 has no canaries, and bank.require_canaries is true" in found.text


def test_misses_that_are_agreed_to_are_a_warning(place: WatchedPlace, tmp_path: Path) -> None:
    """
    With a lower bank.canary_agreement the worker starts, and the misses are told all the same.
    """
    activate_with_canaries(place, tmp_path / "canaries", wrong=1)
    bank = place.settings.bank.model_copy(update={"canary_agreement": 0.8})
    place.settings = place.settings.model_copy(update={"bank": bank})
    found = canaries_at(place)
    place.watch()

    assert "warning" == found.status
    assert "release 3: 4 of 5 judged as expected. The worst: real/000.png" in found.text
    assert "bank.canary_agreement is 0.8" in found.text


def test_what_is_disabled_passes_canaries_with_a_warning(place: WatchedPlace, tmp_path: Path) -> None:
    """
    As the worker, which starts with it all the same: the release passes with nothing left out.
    """
    activate_with_canaries(place, tmp_path / "canaries")
    few = frozenset(sorted(entry.id for entry in load_bank(place.banks[1]).entries if entry.label == "real")[1:])
    place.releases.disable(BY, entries=few, generators=frozenset())
    found = canaries_at(place)

    assert "3" == place.watch().status().release
    assert "warning" == found.status
    assert "references of it are disabled" in found.text


def test_disabling_excuses_no_canary_that_the_whole_release_misses(place: WatchedPlace, tmp_path: Path) -> None:
    """
    A worker refuses such a release too.
    """
    activate_with_canaries(place, tmp_path / "canaries", wrong=1)
    place.releases.disable(BY, entries=frozenset(), generators=frozenset({"loom"}))

    assert "failed" == canaries_at(place).status
    assert "1" == place.watch().status().release


def test_a_release_without_canaries_is_skipped(place: WatchedPlace) -> None:
    """
    The line says how a release gets some.
    """
    found = canaries_at(place)

    assert "skipped" == found.status
    assert "published without --canaries" in found.text


def test_a_bank_in_a_directory_of_its_own_is_judged_by_canaries_that_lie_there(
    place: WatchedPlace, tmp_path: Path
) -> None:
    """
    As a worker that starts with it does; without any there is nothing to judge.
    """
    place.settings = place.settings.model_copy(update={"bank": BankSettings(path=place.banks[0])})
    before = canaries_at(place)
    folder = tmp_path / "canaries"
    folder.mkdir()
    for name, path in canaries_of(place.banks[0], folder).items():
        (place.banks[0] / name).write_bytes(path.read_bytes())
    after = canaries_at(place)

    assert "skipped" == before.status
    assert "the bank's directory has no canaries of its own" in before.text
    assert ("ok", "5 of 5 judged as expected") == (after.status, after.text)


@pytest.mark.parametrize(
    ("wrong", "listed", "agreement", "status"),
    [(0, True, 1.0, "warning"), (1, True, 1.0, "failed"), (1, False, 1.0, "failed"), (1, False, 0.8, "warning")],
)
def test_a_quarantined_bank_is_judged_as_its_worker_would(
    place: WatchedPlace, tmp_path: Path, wrong: int, agreement: float, status: str, *, listed: bool
) -> None:
    """
    With nothing left out it must pass; what misses only without the references of the list is a warning.
    """
    bank = place.banks[0]
    (tmp_path / "canaries").mkdir()
    for name, path in canaries_of(bank, tmp_path / "canaries", wrong=wrong).items():
        (bank / name).write_bytes(path.read_bytes())
    reals = [entry.id for entry in load_bank(bank).entries if entry.label == "real"]
    quarantine = Quarantine(bank="small").with_more(Without(frozenset(reals[1:] if listed else [])), BY)
    write_quarantine(tmp_path / "list.json", quarantine)
    given = BankSettings(path=bank, quarantine_path=tmp_path / "list.json", canary_agreement=agreement)
    place.settings = place.settings.model_copy(update={"bank": given})
    found = canaries_at(place)
    starts = True
    try:
        place.open()
    except BankInvalid:
        starts = False

    assert (status, status != "failed") == (found.status, starts)
    assert ("quarantine_path" in found.text) is (listed and not wrong)


@pytest.mark.parametrize("missing", ["release", "bank", "encoder", "policy"])
def test_what_is_missing_is_told_elsewhere(place: WatchedPlace, tmp_path: Path, missing: str) -> None:
    """
    Canaries are judged when weights, bank and policy are there; otherwise the check names the finding to read.
    """
    activate_with_canaries(place, tmp_path / "canaries")
    check = {"release": "bank", "encoder": "weights"}.get(missing, missing)
    parts = replace(parts_at(place), **{missing: broken(check)})
    found = canaries_at(place, parts)

    assert ("skipped", f"needs {check}, which failed") == (found.status, found.text)
    with pytest.raises(Unanswerable):
        model.canaries(place.settings, parts)


def test_damaged_canaries_fail(place: WatchedPlace, tmp_path: Path) -> None:
    """
    The file is named.
    """
    activate_with_canaries(place, tmp_path / "canaries")
    file = place.root / "3" / CANARY_VECTORS
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    found = canaries_at(place)

    assert "failed" == found.status
    assert CANARY_VECTORS in found.text


def test_the_release_is_looked_up_once(place: WatchedPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    All checks speak of the same release, though another becomes active meanwhile.
    """
    activate_with_canaries(place, tmp_path / "canaries")
    parts = parts_at(place)
    bank = model.bank(place.settings, replace(parts, policy=there(load_policy(ROOT / "config" / "policy.toml"))))
    place.releases.activate("1", BY)

    assert "ok" == bank.status
    assert "release 3: 5 of 5 judged as expected" == canaries_at(place, parts).text
