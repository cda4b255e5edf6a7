"""
Whatever makes or changes a bank, killed or out of disk at every step: there is the old bank, the new one, or none.

A step is anything that Python announces of the file system below the bank's name; the child that takes it is a fork.
"""

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bank_builders import a_source, add_to_small, build_small, snapshot, write_pictures
from tests.fake_teacher import Fitted
from worker.bank.files import load_bank, read_manifest
from worker.bank.own_folder import own_folder, take_folder
from worker.bank.release import with_judgement
from worker.bank.signing_key import make_key, read_key, sign_bank
from worker.errors import BankInvalid, TouchstoneError

FINISHED, REFUSED, CRASHED = 0, 3, 4
AT_MOST_STEPS = 1_000
CHILD_ENDS_S = 60
STRIDE = 1 if os.environ.get("TOUCHSTONE_EVERY_STEP") else 5
"""Of the steps, so many at a time are gone on by; all are tried where somebody has the minutes."""

STEPS = frozenset({"open", "os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "os.chmod", "os.truncate"})

Work = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Change:
    """
    Something done to ``FOLDER/bank``: what must be there before, and the command that is run, and run again.
    """

    name: str
    prepare: Work
    work: Work


def the_first(folder: Path) -> None:
    """
    Bank 1, of two references.
    """
    build_small(a_source(folder / "source", reals=1, fakes=1), folder / "bank")


def the_first_and_more(folder: Path) -> None:
    """
    Bank 1, and references to add to it.
    """
    the_first(folder)
    write_pictures(folder / "more", "fake/loom/a.png", first_seed=500)


def the_first_signed(folder: Path) -> None:
    """
    Bank 1 under the signature of one key, and another key.
    """
    the_first(folder)
    for name in ("one", "two"):
        make_key(folder / name)
    sign_bank(folder / "bank", read_key(folder / "one"))


def build(folder: Path) -> None:
    """
    A bank of the source, in place of what is there.
    """
    build_small(folder / "source", folder / "bank", replace=True, version="2")


def add(folder: Path) -> None:
    """
    What there is more; nothing where the killed run had come so far.
    """
    if read_manifest(folder / "bank").version == "1":
        add_to_small(folder / "bank", folder / "more")
    else:
        build_small(folder / "source", folder / "bank", replace=True, version="3")


BUILD = Change("build", lambda folder: a_source(folder / "source", reals=1, fakes=1), build)
REPLACE = Change("replace", the_first, build)
ADD = Change("add", the_first_and_more, add)
FIT = Change("fit", the_first, lambda folder: with_judgement(folder / "bank", Fitted()))
SIGN = Change("sign", the_first_signed, lambda folder: sign_bank(folder / "bank", read_key(folder / "two")))
CHANGES = pytest.mark.parametrize("change", [BUILD, REPLACE, ADD, FIT, SIGN], ids=lambda change: change.name)


def kill() -> None:
    """
    What no handler sees.
    """
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    """
    What the system says of a full disk.
    """
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def in_child(change: Change, folder: Path, step: int, seam: Callable[[], None]) -> tuple[int, bool]:
    """
    Do the change in a fork with ``seam`` called at that step; returns how it ended, and whether the step was reached.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        left = [step]

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event in STEPS and any(_below(one, str(folder / "bank")) for one in arguments[:2]):
                left[0] -= 1
                if left[0] == 0:
                    os.write(writing, b"!")
                    seam()

        code = CRASHED
        try:
            signal.alarm(CHILD_ENDS_S)
            sys.addaudithook(hook)
            change.work(folder)
            code = FINISHED
        except TouchstoneError:
            code = REFUSED
        finally:
            os._exit(code)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as told:
        return os.waitstatus_to_exitcode(status), told.read() == b"!"


def _below(path: object, prefix: str) -> bool:
    return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(prefix)


def state(bank: Path) -> dict[str, bytes] | None:
    """
    The bank's files, after every check; None where there is nothing at all.
    """
    if not bank.exists():
        return None
    load_bank(bank)
    return {name: data for name, data in snapshot(bank).items() if not name.startswith(".")}


def every_step(change: Change, folder: Path, seam: Callable[[], None], ends: set[int]) -> int:
    """
    Interrupt a change at each of its steps in turn and look what is there; returns the last one that there was.
    """
    pattern = folder / "pattern"
    pattern.mkdir()
    change.prepare(pattern)
    before = state(pattern / "bank")
    names = {path.name for path in pattern.iterdir()} | {"bank"}
    for step in range(1, AT_MOST_STEPS, STRIDE):
        here = folder / "here"
        shutil.copytree(pattern, here)
        ended, reached = in_child(change, here, step, seam)
        after = state(here / "bank")
        if not reached:
            assert (FINISHED, True) == (ended, after not in (None, before))
            return step - STRIDE
        assert ended in ends
        assert after is not None or before is None
        change.work(here)
        assert state(here / "bank") not in (None, before)
        assert names == {path.name for path in here.iterdir()}
        assert not list((here / "bank").glob(".*"))
        shutil.rmtree(here)
    raise AssertionError("the change has no end")


@CHANGES
def test_a_change_that_is_killed_leaves_no_half_bank(change: Change, tmp_path: Path) -> None:
    """
    SIGKILL before each step: the old bank whole, or the new; the next run ends well and leaves nothing beside it.
    """
    assert every_step(change, tmp_path, kill, {-signal.SIGKILL}) > 0


@CHANGES
def test_a_full_disk_leaves_no_half_bank(change: Change, tmp_path: Path) -> None:
    """
    ENOSPC at each step: refused in our own words, or passed over where nothing was lost; and the old bank is whole.
    """
    assert every_step(change, tmp_path, full, {FINISHED, REFUSED}) > 0


def test_one_folder_has_one_user(tmp_path: Path) -> None:
    """
    A second one is refused while it lasts, and comes into an empty one after it; nothing is left when both are done.
    """
    with own_folder(tmp_path / "bank.fitting") as folder:
        (folder / "left").touch()
        with pytest.raises(BankInvalid, match="in use by another build"), own_folder(tmp_path / "bank.fitting"):
            raise AssertionError("two had it at once")
        still = (folder / "left").exists()
    (tmp_path / "bank.fitting" / "of a killed run").mkdir(parents=True)
    with own_folder(tmp_path / "bank.fitting") as folder:
        found = list(folder.iterdir())

    assert (True, []) == (still, found)
    assert not list(tmp_path.iterdir())


def test_a_lock_on_a_folder_that_was_removed_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Between opening and locking, the last user may clear the folder away: the one that has the name then is taken.
    """
    path, real = tmp_path / "bank.partial", os.open
    removed: list[int] = []

    def opened(name: Path, flags: int) -> int:
        descriptor = real(name, flags)
        if not removed:
            removed.append(path.stat().st_ino)
            path.rmdir()
            path.with_name("in the way, so that the number is another").mkdir()
            path.mkdir()
        return descriptor

    monkeypatch.setattr("worker.bank.own_folder.os.open", opened)
    lock = take_folder(path)
    taken = os.fstat(lock).st_ino
    os.close(lock)

    assert path.stat().st_ino == taken
    assert 1 == len(removed)
