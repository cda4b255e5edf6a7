"""
A worker that starts while the announced release cannot be used: it takes the last one that can, and says so.
"""

import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.release_worlds import BY, WatchedPlace, canaries_of
from worker.errors import CannotStart, EncoderInvalid
from worker.operation.active_release import active_release
from worker.operation.bank_watch import BankWatch
from worker.operation.gauges import release_readings


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WatchedPlace:
    """
    Releases 1 and 2, of which 2 is active and 1 was before.
    """
    made = WatchedPlace(tmp_path, monkeypatch)
    made.releases.activate("2", BY)
    return made


def damage(place: WatchedPlace, release: str) -> None:
    """
    Some bytes of its vectors are not what they were.
    """
    with (place.root / release / "vectors.safetensors").open("r+b") as file:
        file.write(b"\xff\xff")


def refused(watch: BankWatch) -> float:
    """
    The gauge.
    """
    (reading,) = release_readings(watch.status(), group="live")
    assert ("bank_refused", {"group": "live"}) == (reading.name, reading.labels)
    return reading.value


def test_the_release_before_a_damaged_one_is_taken(place: WatchedPlace) -> None:
    """
    With an error in the log, the refusal in the status and the gauge raised.
    """
    damage(place, "2")
    with capture_logs() as lines:
        watch = place.watch()
    status = watch.status()
    (told,) = (line for line in lines if line["event"] == "bank.started_with_earlier")

    assert ("error", "1") == (told["log_level"], told["used"])
    assert ("1", 0) == (status.release, status.swaps)
    assert status.last_refusal is not None
    assert status.last_refusal.startswith("release 2: BankInvalid: ")
    assert "vectors.safetensors" in status.last_refusal
    assert 1 == refused(watch)
    assert 1 == place.counted("refused")


def test_the_state_ends_with_the_next_release(place: WatchedPlace) -> None:
    """
    The refused one is not tried at each look; what is announced after it is followed.
    """
    damage(place, "2")
    watch = place.watch()
    for _ in range(3):
        watch._look(place.releases.active)
    looked = [place.counted("refused"), refused(watch)]
    place.releases.publish(place.banks[1], "3")
    watch.follow(place.releases.activate("3", BY))

    status = watch.status()

    assert [1, 1] == looked
    assert ["3", None, 0] == [status.release, status.last_refusal, refused(watch)]


def test_a_rollback_to_what_was_taken_ends_it_too(place: WatchedPlace) -> None:
    """
    Nothing is loaded for that.
    """
    damage(place, "2")
    watch = place.watch()
    watch.follow(place.releases.rollback(BY))
    status = watch.status()

    assert ("1", 0, None) == (status.release, status.swaps, status.last_refusal)


def test_missed_canaries_fall_back_as_damage_does(place: WatchedPlace, tmp_path: Path) -> None:
    """
    The release that was used before is taken, here the second of the history.
    """
    place.releases.publish(place.banks[1], "3", canaries=canaries_of(place.banks[1], tmp_path, wrong=2))
    place.releases.activate("3", BY)
    watch = place.watch()

    assert "2" == watch.status().release
    assert "3 of 5 canaries" in (watch.status().last_refusal or "")


def test_disabling_does_not_let_failing_canaries_pass_a_start(place: WatchedPlace, tmp_path: Path) -> None:
    """
    A release has to pass with nothing left out; the one before it is taken without what is disabled.
    """
    place.releases.publish(place.banks[1], "3", canaries=canaries_of(place.banks[1], tmp_path, wrong=2))
    place.releases.activate("3", BY)
    place.releases.disable(BY, entries=frozenset(), generators=frozenset({"loom"}))
    opened = place.open()
    watch = place.watch(opened)

    assert ("2", 1) == (watch.status().release, watch.status().disabled_generators)
    assert " without " in opened.bank.identity.index


def test_the_history_is_walked_to_a_release_that_can_be_used(place: WatchedPlace, tmp_path: Path) -> None:
    """
    Newest first, each once, over releases that are damaged or gone.
    """
    place.releases.publish(place.banks[1], "3")
    place.releases.activate("3", BY)
    damage(place, "3")
    shutil.rmtree(place.root / "2")

    assert "1" == place.watch().status().release


def test_a_damaged_pointer_is_no_reason_to_stay_away(place: WatchedPlace) -> None:
    """
    The newest state of the history is what it said; a file of the history that says nothing is passed over.
    """
    place.releases.disable(BY, entries=frozenset(), generators=frozenset({"mill"}))
    (place.root / "active.json").write_text("{")
    (place.root / "history" / "000009-activate.json").write_text("{}")
    watch = place.watch()

    assert ("2", 1) == (watch.status().release, watch.status().disabled_generators)
    assert (watch.status().last_refusal or "").startswith("the pointer: BankInvalid: ")
    assert 1 == refused(watch)


def test_no_start_where_no_release_can_be_used(place: WatchedPlace) -> None:
    """
    The refusal names the announced one first, then what else was tried, and what to do.
    """
    damage(place, "1")
    damage(place, "2")

    with pytest.raises(
        CannotStart, match=r"release 2: .*No earlier release .*: release 1: .*`touchstone bank activate`"
    ):
        place.open()


def test_only_so_many_releases_are_tried(place: WatchedPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A start takes no longer than a few releases take to read.
    """
    for number in range(3, 9):
        place.releases.publish(place.banks[1], str(number))
        place.releases.activate(str(number), BY)
    opened: list[str] = []

    def refuse(path: Path, _trusted: object = ()) -> None:
        opened.append(path.name)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("worker.whole_banks.read_bank", refuse)
    with pytest.raises(CannotStart, match="Input/output error"):
        place.open()

    assert ["8", "7", "6", "5", "4", "3"] == opened


def test_another_fault_than_the_release_s_is_raised_at_once(
    place: WatchedPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Without an encoder no release can be used, and the message is the encoder's.
    """

    def fail(*_: object, **__: object) -> None:
        raise EncoderInvalid("no weights")

    monkeypatch.setattr("worker.instruments.load_encoder", fail)
    with pytest.raises(EncoderInvalid, match="no weights"):
        place.open()


def test_the_doctor_is_told_of_the_announced_release_alone(place: WatchedPlace) -> None:
    """
    It looks for what is wrong, and does not go around it.
    """
    damage(place, "2")

    with pytest.raises(CannotStart, match="damaged or replaced"):
        active_release(place.settings)
