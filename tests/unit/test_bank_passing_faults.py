"""
What passes is no verdict on a release: a mount that is lost, memory that is short. The worker tries again, less often.
"""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from schemas.bank_control import BankControlV1
from tests.fake_outcomes import ManualClock
from tests.release_worlds import BY, WatchedPlace
from worker.bank.files import load_bank
from worker.bank.regular_files import FileRefused, read_whole
from worker.errors import BankInvalid, CannotStart, ReadFault
from worker.operation.passing_faults import LONGEST_S, RECORDS, Attempts

PASSING = [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE]


class Failing:
    """
    From now on files of these names cannot be opened; ``mended`` ends it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int, *endings: str) -> None:
        self.endings = endings
        self.asked = 0
        really = os.open

        def failing(path: os.PathLike[str] | str, flags: int, mode: int = 0o777) -> int:
            if str(path).endswith(self.endings):
                self.asked += 1
                raise OSError(code, os.strerror(code))
            return really(path, flags, mode)

        monkeypatch.setattr("worker.bank.regular_files.os.open", failing)

    def mended(self) -> None:
        """
        All files can be opened again.
        """
        self.endings = ("no such name",)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WatchedPlace:
    """
    Releases 1 and 2; 1 is active.
    """
    return WatchedPlace(tmp_path, monkeypatch)


@pytest.mark.parametrize("code", PASSING)
def test_a_release_that_could_not_be_read_is_tried_again(
    place: WatchedPlace, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """
    It is not called damaged, and the worker uses it once it can be read.
    """
    watch = place.watch()
    control = place.releases.activate("2", BY)
    failing = Failing(monkeypatch, code, "2/vectors.safetensors")
    watch.follow(control)
    between = watch.status()
    failing.mended()
    watch.follow(control)

    assert "1" == between.release
    assert "cannot be read at this moment" in (between.last_refusal or "")
    assert "damaged" not in (between.last_refusal or "")
    assert ("2", None) == (watch.status().release, watch.status().last_refusal)


@pytest.mark.parametrize("name", ["2/manifest.json", "2/entries.jsonl"])
def test_a_file_that_is_a_link_is_a_wrong_release(place: WatchedPlace, name: str) -> None:
    """
    That does not mend itself, and is not read again at each look.
    """
    watch = place.watch()
    control = place.releases.activate("2", BY)
    (place.root / name).unlink()
    (place.root / name).symlink_to("elsewhere")
    watch.follow(control)

    assert "is a symbolic link" in (watch.status().last_refusal or "")
    assert (1, 0) == (place.counted("refused"), place.counted("unreachable"))


def test_no_memory_for_two_banks_is_told_once_and_tried_again(
    place: WatchedPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Loading both is not refused for good: another process may have had the memory.
    """
    watch = place.watch()
    control = place.releases.activate("2", BY)
    with monkeypatch.context() as short:
        short.setattr("worker.operation.bank_watch.read_release", _no_memory)
        watch.follow(control)
        watch.follow(control)
    why = watch.status().last_refusal or ""
    watch._attempts.ended(control)
    watch.follow(control)

    assert "there is no memory to have it beside the bank in use" in why
    assert (1, 0) == (place.counted("unreachable"), place.counted("refused"))
    assert "2" == watch.status().release


def test_a_disabling_that_failed_is_tried_again(place: WatchedPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A reference that was found bad must not go on judging because memory was short once.
    """
    watch = place.watch()
    control = place.releases.disable(BY, generators=frozenset({"loom"}))
    with monkeypatch.context() as short:
        short.setattr("worker.operation.bank_watch.open_release", _no_memory)
        watch.follow(control)
    before = watch.status().disabled_generators
    watch.follow(control)

    assert (0, 1) == (before, watch.status().disabled_generators)
    assert watch.status().last_refusal is None


def test_a_disabling_beside_a_refused_release_is_tried_again(
    place: WatchedPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The release stays refused and is not read again; what is disabled is left out of the bank in use all the same.
    """
    watch = place.watch()
    with (place.root / "2" / "vectors.safetensors").open("r+b") as file:
        file.write(b"\xff\xff")
    place.releases.activate("2", BY)
    control = place.announced(disabled_generators=["loom"])
    with monkeypatch.context() as short:
        short.setattr("worker.operation.bank_watch.open_release", _no_memory)
        watch.follow(control)
    refused = watch.status()
    watch.follow(control)
    status = watch.status()

    assert ("1", 0) == (refused.release, refused.disabled_generators)
    assert ("1", 1) == (status.release, status.disabled_generators)
    assert "vectors.safetensors" in (status.last_refusal or "")


def test_a_start_falls_back_and_goes_on_trying(place: WatchedPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The release before judges until the announced one can be read.
    """
    control = place.releases.activate("2", BY)
    failing = Failing(monkeypatch, errno.EIO, "2/vectors.safetensors")
    with capture_logs() as lines:
        watch = place.watch()
    started = watch.status()
    failing.mended()
    watch.follow(control)

    assert "1" == started.release
    assert ["bank.started_with_earlier"] == [line["event"] for line in lines if line["log_level"] == "error"]
    assert ("2", None) == (watch.status().release, watch.status().last_refusal)


def test_a_bank_that_cannot_be_read_is_not_called_damaged(place: WatchedPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nor one whose folder cannot be looked at; what is missing is.
    """
    Failing(monkeypatch, errno.EIO, "vectors.safetensors")
    with pytest.raises(ReadFault, match="says nothing of what is in it"):
        load_bank(place.banks[0])
    with pytest.raises(FileRefused, match="No such file"):
        read_whole(place.root / "none", most_bytes=1)
    with pytest.raises(BankInvalid, match="found no directory"):
        load_bank(place.root / "none")

    assert issubclass(ReadFault, CannotStart)


@given(st.integers(1, 40), st.floats(0.1, 60))
def test_attempts_come_further_apart(failures: int, first_s: float) -> None:
    """
    The second at the next look, each later one after a longer pause, never after more than five minutes.
    """
    clock = ManualClock()
    attempts = Attempts(clock, first_s)
    pauses = []
    for _ in range(failures):
        attempts.failed(control_of("1"))
        pauses.append(attempts.due_s(control_of("1")) - clock.monotonic_s())

    assert 0.0 == pauses[0]
    assert pauses == sorted(pauses)
    assert max(pauses) <= LONGEST_S
    assert attempts.due(control_of("2"))
    attempts.ended(control_of("1"))
    assert attempts.due(control_of("1"))


def test_records_in_turn_keep_their_counts() -> None:
    """
    A pointer that changes to and fro has neither read at each look; more records than are counted begin again.
    """
    clock = ManualClock()
    attempts = Attempts(clock, 10.0)
    for _ in range(3):
        for release in ("1", "2"):
            attempts.failed(control_of(release))
        attempts.ended(control_of("3"))
    due = [attempts.due_s(control_of(release)) - clock.monotonic_s() for release in ("1", "2")]
    for number in range(RECORDS):
        attempts.failed(control_of(f"other-{number}"))

    assert [30.0, 30.0] == due
    assert attempts.due(control_of("1"))
    assert RECORDS == len(attempts._failed)


def test_a_look_that_fails_twice_is_counted_once(place: WatchedPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is disabled could not be left out, nor the release be loaded: it is tried again at the next look.
    """
    watch = place.watch()
    place.releases.activate("2", BY)
    control = place.releases.disable(BY, generators=frozenset({"loom"}))
    with monkeypatch.context() as short:
        short.setattr("worker.operation.bank_watch.open_release", _no_memory)
        watch.follow(control)
    due = watch._attempts.due(control)
    watch.follow(control)

    assert due
    assert ("2", 1) == (watch.status().release, watch.status().disabled_generators)


def control_of(release: str) -> BankControlV1:
    """
    A record of some release.
    """
    said = {"bank": "a", "release": release, "manifest_sha256": "0" * 64, "issued_at": "2026-01-01T00:00:00Z"}
    return BankControlV1.model_validate(said, strict=False)


def _no_memory(*_: object) -> None:
    raise MemoryError
