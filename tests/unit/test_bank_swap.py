"""
Putting a directory in another's place, with and without the system's help.
"""

import errno
import os
from pathlib import Path

import pytest

from worker.bank import swap
from worker.errors import BankInvalid


def folder(path: Path, content: str) -> Path:
    """
    A directory with one file.
    """
    path.mkdir()
    (path / "file").write_text(content)
    return path


def content(path: Path) -> str:
    """
    What that file holds.
    """
    return (path / "file").read_text()


def test_a_free_name_is_taken(tmp_path: Path) -> None:
    """
    By one rename.
    """
    swap.put_in_place(folder(tmp_path / "fresh", "new"), tmp_path / "bank", replace=False)

    assert content(tmp_path / "bank") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["bank"]


def test_a_taken_name_is_refused(tmp_path: Path) -> None:
    """
    Both stay as they were.
    """
    fresh, bank = folder(tmp_path / "fresh", "new"), folder(tmp_path / "bank", "old")

    with pytest.raises(BankInvalid, match="is there already"):
        swap.put_in_place(fresh, bank, replace=False)
    assert (content(fresh), content(bank)) == ("new", "old")


@pytest.mark.parametrize("can_exchange", [True, False])
def test_replacing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, can_exchange: bool) -> None:
    """
    The new one has the name and nothing else is left, whether or not the system can exchange two names.
    """
    if not can_exchange:
        monkeypatch.setattr(swap, "_exchange", lambda _one, _other: False)
    folder(tmp_path / "bank.old", "left by a crash")
    fresh, bank = folder(tmp_path / "fresh", "new"), folder(tmp_path / "bank", "old")
    swap.put_in_place(fresh, bank, replace=True)

    assert content(bank) == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank", "bank.old"][: 2 if can_exchange else 1]


def test_the_name_is_never_free_while_exchanging(tmp_path: Path) -> None:
    """
    One step: whoever opens the name finds the old or the new directory.
    """
    one, other = folder(tmp_path / "one", "new"), folder(tmp_path / "other", "old")
    if not swap._exchange(one, other):
        pytest.skip("this file system cannot exchange two names")

    assert (content(one), content(other)) == ("old", "new")


def test_a_failed_exchange_is_said(tmp_path: Path) -> None:
    """
    Anything but "cannot" is an error of its own.
    """
    with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
        swap._exchange(tmp_path / "nowhere", folder(tmp_path / "bank", "old"))


def test_a_crash_between_two_renames_keeps_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the system cannot exchange, the worst that is left is the old bank under another name.
    """
    monkeypatch.setattr(swap, "_exchange", lambda _one, _other: False)
    fresh, bank = folder(tmp_path / "fresh", "new"), folder(tmp_path / "bank", "old")
    rename = Path.rename

    def crash_on_the_second(path: Path, target: Path) -> Path:
        if path == fresh:
            raise OSError(errno.EIO, "pulled the plug")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", crash_on_the_second)

    with pytest.raises(OSError, match="pulled the plug"):
        swap.put_in_place(fresh, bank, replace=True)
    assert content(tmp_path / "bank.old") == "old"
    assert content(fresh) == "new"
