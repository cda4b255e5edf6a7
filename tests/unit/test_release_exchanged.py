"""
A release whose files are exchanged between being verified and being read is refused, whoever reads it.
"""

import shutil
from pathlib import Path

import pytest

from schemas.bank_control import BankControlV1
from tests.release_worlds import BY, WatchedPlace, canaries_of
from worker.bank.canary_files import read_canaries
from worker.bank.files import load_bank
from worker.bank.manifest import CANARIES
from worker.bank.releases import Releases
from worker.errors import BankInvalid, CannotStart
from worker.whole_banks import read_release


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WatchedPlace:
    """
    Releases 1 and 2; 1 is active.
    """
    return WatchedPlace(tmp_path, monkeypatch)


def exchange_once_verified(monkeypatch: pytest.MonkeyPatch, other: Path) -> None:
    """
    From now on a release is replaced, by a bank that is right in itself, in the moment after it passed every check.
    """
    verify = Releases.verified

    def verified(releases: Releases, control: BankControlV1) -> Path:
        folder = verify(releases, control)
        shutil.rmtree(folder)
        shutil.copytree(other, folder)
        return folder

    monkeypatch.setattr(Releases, "verified", verified)


def test_a_worker_does_not_start_with_it(place: WatchedPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The bank that it reads is another than the record names, though each of its checksums is right.
    """
    exchange_once_verified(monkeypatch, place.banks[1])

    with pytest.raises(CannotStart, match=r"was activated: it is another bank"):
        place.open()


def test_a_running_worker_keeps_its_bank(place: WatchedPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As for any release that is refused.
    """
    watch = place.watch()
    exchange_once_verified(monkeypatch, place.banks[0])
    watch.follow(place.releases.activate("2", BY))

    assert watch.status().release == "1"
    assert "was activated: it is another bank" in str(watch.status().last_refusal)
    assert place.counted("refused") == 1


def test_nobody_else_reads_it(place: WatchedPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Neither the commands on releases nor the doctor.
    """
    control = place.announced()
    right = read_release(place.root / "1", control)
    exchange_once_verified(monkeypatch, place.banks[1])

    assert right.stored.manifest == load_bank(place.banks[0]).manifest
    with pytest.raises(BankInvalid, match="it is another bank"):
        place.releases.stored(control)
    with pytest.raises(BankInvalid, match="it is another bank"):
        read_release(place.root / "1", control)


def test_canaries_are_the_ones_that_were_activated(place: WatchedPlace, tmp_path: Path) -> None:
    """
    Easier ones, whole in themselves, are refused; so are none.
    """
    bank = place.banks[0]
    for name in ("strict", "easy"):
        (tmp_path / name).mkdir()
    strict, easy = canaries_of(bank, tmp_path / "strict"), canaries_of(bank, tmp_path / "easy", wrong=1)
    place.releases.publish(bank, "3", canaries=strict)
    activated = place.releases.activate("3", BY).canaries_sha256
    manifest = load_bank(bank).manifest
    right = read_canaries(place.root / "3", manifest, activated=activated)
    for name, path in easy.items():
        shutil.copyfile(path, place.root / "3" / name)

    assert len(right) == 5
    with pytest.raises(BankInvalid, match=rf"{CANARIES} has sha256 \w+, {activated} was activated"):
        read_canaries(place.root / "3", manifest, activated=activated)
    with pytest.raises(BankInvalid, match=rf"{CANARIES} cannot be read"):
        read_canaries(bank, manifest, activated=activated)
