"""
The shelf of exported encoders: made once, whole or not at all, checked at every use, and nobody else's.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from structlog.testing import capture_logs

from worker.adapters.export_shelf import RECORD, RECORD_SHA256, TowerFacts, take
from worker.errors import EncoderInvalid

FACTS = TowerFacts(architecture_sha256="a", weights_sha256="b", size=8, trial=(0.5, -1.25, 1e-30))
NAME = "runtime-fp32-0123456789abcdef"
FILES = {"tower.bin": b"weights" * 1000, "tower.xml": b"<net/>"}


class Maker:
    """
    Writes two files; knows how often it was asked.
    """

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, folder: Path) -> TowerFacts:
        """
        As ``Make``; the folder must be empty.
        """
        assert not list(folder.iterdir())
        self.asked += 1
        for name, data in FILES.items():
            (folder / name).write_bytes(data)
        return FACTS


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """
    A place that is not there yet.
    """
    return tmp_path / "caches" / "encoders"


def test_an_entry_is_made_once(shelf: Path) -> None:
    """
    The second time its files and facts are found as they were made, and no other user may look into it.
    """
    make = Maker()
    first, second = take(shelf, NAME, make), take(shelf, NAME, make)

    assert (1, first) == (make.asked, second)
    assert FACTS == second.facts
    assert {name: (second.folder / name).read_bytes() for name in FILES} == FILES
    assert 0o700 == shelf.stat().st_mode & 0o777 == second.folder.stat().st_mode & 0o777


@pytest.mark.parametrize("name", [*FILES, RECORD, RECORD_SHA256])
@pytest.mark.parametrize("harm", ["flipped", "shorter", "gone"])
def test_a_damaged_entry_is_made_anew_and_said(shelf: Path, name: str, harm: str) -> None:
    """
    Whatever file of it was changed, cut or lost: it is not used, the log names the file, and a whole one is made.
    """
    make = Maker()
    file = take(shelf, NAME, make).folder / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    match harm:
        case "flipped":
            file.write_bytes(data)
        case "shorter":
            file.write_bytes(data[: len(data) // 2])
        case _:
            file.unlink()
    with capture_logs() as logs:
        again = take(shelf, NAME, make)

    assert 2 == make.asked
    assert {name: (again.folder / name).read_bytes() for name in FILES} == FILES
    assert {"encoder_export_damaged"} == {line["event"] for line in logs if line["log_level"] == "warning"}
    assert name.removesuffix(".sha256") in {line["file"].removesuffix(".sha256") for line in logs if "file" in line}


def test_of_many_at_once_one_makes_it(shelf: Path) -> None:
    """
    Those who want it while it is made wait, and then use what was made.
    """
    make, start = Maker(), Barrier(8)

    def one(_: int) -> TowerFacts:
        start.wait(60)
        return take(shelf, NAME, make).facts

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(one, range(8)))

    assert [FACTS] * 8 == found
    assert 1 == make.asked


def test_a_failure_leaves_nothing(shelf: Path) -> None:
    """
    What could not be made is not there, not even in part, and the next attempt begins anew.
    """

    def fail(folder: Path) -> TowerFacts:
        (folder / "tower.bin").write_bytes(b"half")
        raise EncoderInvalid("this tower cannot be exported")

    with pytest.raises(EncoderInvalid, match="cannot be exported"):
        take(shelf, NAME, fail)

    assert [f"{NAME}.lock"] == [path.name for path in shelf.iterdir()]
    assert FACTS == take(shelf, NAME, Maker()).facts


def test_what_a_killed_process_left_is_cleared_away(shelf: Path) -> None:
    """
    A part that nobody finished is in nobody's way.
    """
    part = shelf / f"{NAME}.part"
    shelf.mkdir(parents=True, mode=0o700)
    part.mkdir()
    (part / "tower.bin").write_bytes(b"half")
    take(shelf, NAME, Maker())

    assert {NAME, f"{NAME}.lock"} == {path.name for path in shelf.iterdir()}


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
def test_a_shelf_that_others_may_write_is_refused(shelf: Path, mode: int) -> None:
    """
    Who may write there would decide what the encoder computes: the message names the mode and a way out.
    """
    shelf.mkdir(parents=True)
    shelf.chmod(mode)
    make = Maker()

    with pytest.raises(EncoderInvalid, match=f"mode {mode & 0o777:o}.*chmod go-w"):
        take(shelf, NAME, make)
    assert 0 == make.asked


def test_an_entry_that_others_may_write_is_refused(shelf: Path) -> None:
    """
    Copied there with what may be done to it, on a shelf that is this user's alone.
    """
    make = Maker()
    take(shelf, NAME, make).folder.chmod(0o777)

    with pytest.raises(EncoderInvalid, match=f"{NAME} may be written by others.*mode 777"):
        take(shelf, NAME, make)


def test_a_shelf_that_cannot_be_made_is_told(shelf: Path) -> None:
    """
    The message names the directory and the setting.
    """
    shelf.parent.write_text("no directory")

    with pytest.raises(EncoderInvalid, match=r"set encoder\.export_dir"):
        take(shelf, NAME, Maker())


def test_the_shelf_of_another_user_is_refused(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An owner who is neither this user nor root could change what is there.
    """
    shelf.mkdir(parents=True, mode=0o700)
    if shelf.stat().st_uid == 0:
        os.chown(shelf, 12_345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 54_321)

    with pytest.raises(EncoderInvalid, match="owner"):
        take(shelf, NAME, Maker())
