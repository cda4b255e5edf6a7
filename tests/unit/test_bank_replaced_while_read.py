"""
A bank that is put in place of another while it is read is read once more, and never called damaged for that.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bank_builders import a_source, build_small
from worker.bank import files
from worker.bank.files import load_bank
from worker.bank.settled import read_settled
from worker.bank.swap import put_in_place
from worker.errors import BankInvalid


@pytest.fixture
def banks(tmp_path: Path) -> tuple[Path, Path]:
    """
    The bank that is read, and another version of it.
    """
    first = build_small(a_source(tmp_path / "one"), tmp_path / "bank", version="1").path
    return first, build_small(a_source(tmp_path / "two", reals=9), tmp_path / "other", version="2").path


@pytest.mark.parametrize("at", ["read_entries", "_checked_files", "check_signature"])
def test_the_new_one_is_read(banks: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """
    Whenever it came: between the manifest and its files, or between two of them.
    """
    bank, other = banks
    really: Callable[..., object] = getattr(files, at)
    asked = []

    def replaced(*args: object) -> object:
        asked.append(at)
        if len(asked) == 1:
            fresh = bank.with_name("fresh")
            shutil.copytree(other, fresh)
            put_in_place(fresh, bank, replace=True)
        return really(*args)

    monkeypatch.setattr(files, at, replaced)
    found = load_bank(bank)

    assert found.manifest.version == ("1" if at == "read_entries" else "2")
    assert len(found.entries) == found.manifest.counts.entries


def test_a_damaged_bank_is_read_once(banks: tuple[Path, Path]) -> None:
    """
    Its manifest is as it was, so nobody replaced it.
    """
    bank, _ = banks
    with (bank / "vectors.safetensors").open("r+b") as file:
        file.write(b"\xff\xff")
    asked = []

    def read() -> None:
        asked.append(bank)
        load_bank(bank)

    with pytest.raises(BankInvalid, match=r"vectors\.safetensors has sha256 .* damaged or changed by hand"):
        read_settled(bank, read)

    assert [bank] == asked
