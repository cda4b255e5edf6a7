"""
Near duplicates of a bank: told across labels and across sources, counted within a source.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.bank_builders import a_stored_bank
from tests.brute_force_bank import BruteForceBank
from tests.cli_bank_rig import bank_command
from worker.bank.entries import EntryTable
from worker.bank.files import StoredBank, write_contents, write_manifest
from worker.bank.near_duplicates import NEAR_DUPLICATE, near_duplicates
from worker.bank.survey import no_progress
from worker.bank.verify import verify_bank
from worker.domain import BankEntry


def a_bank(*pairs: tuple[int, int], source: dict[int, str | None] | None = None) -> StoredBank:
    """
    Twelve reals and eight generated anywhere; the second of each pair of rows looks like the first.
    """
    rows = np.random.default_rng(3).normal(size=(20, 16))
    for first, second in pairs:
        rows[second] = rows[first] + 1e-3
    stored = a_stored_bank({"real": rows[:12], "ai_generated": rows[12:]})
    named = source or {}
    entries = EntryTable(replace(one, source=named.get(at, "one")) for at, one in enumerate(stored.entries))
    return replace(stored, entries=entries)


def ids(bank: StoredBank, *rows: int) -> list[str]:
    """
    The ids of these rows, sorted.
    """
    return sorted(bank.entries.entry(row).id for row in rows)


def written(path: Path, bank: StoredBank) -> Path:
    """
    The bank on disk.
    """
    rows: list[BankEntry] = list(bank.entries)
    path.mkdir()
    checksums = write_contents(path, rows, stored=bank.stored, probe=bank.probe, probe_png=bank.probe_png)
    write_manifest(path, bank.manifest.model_copy(update={"checksums": checksums}))
    return path


def test_each_pair_is_told_once_by_what_it_crosses() -> None:
    """
    Labels before sources: a pair across both contradicts itself first.
    """
    bank = a_bank((0, 13), (1, 2), (3, 4), (5, 6), source={2: "two", 13: "two", 4: None})
    found = near_duplicates(bank, BruteForceBank(bank), no_progress)
    across, nameless = ids(bank, 1, 2), ids(bank, 3, 4)

    assert len(found.across_labels) == 1
    assert all(name in found.across_labels[0] for name in ids(bank, 0, 13))
    assert len(found.across_sources) == 2
    assert all(name in found.across_sources[0] for name in across)
    assert all(name in found.across_sources[1] for name in (*nameless, "from no named source"))
    assert found.within_source == 1


def test_pictures_that_differ_are_no_duplicates() -> None:
    """
    Nor is a reference one of itself.
    """
    bank = a_bank()
    found = near_duplicates(bank, BruteForceBank(bank), no_progress)

    assert (found.across_labels, found.across_sources, found.within_source) == ((), (), 0)
    assert NEAR_DUPLICATE > 0.99


def test_across_sources_is_a_warning_and_no_finding(tmp_path: Path) -> None:
    """
    Such a bank judges as well as another; what it was measured with is in doubt. Long lists are cut with a count.
    """
    bank = a_bank(*((at, at + 6) for at in range(6)), source=dict.fromkeys(range(6), "two"))
    verification = verify_bank(written(tmp_path / "bank", bank), open_bank=BruteForceBank)

    assert verification.findings == ()
    assert verification.warnings[0].startswith("6 pairs of references of one label are one picture from two sources")
    assert len(verification.warnings) == 7
    assert verification.warnings[-1] == "and 1 more pairs of one picture from two sources"
    assert verification.near_duplicates_within_source == 0


def test_the_command_tells_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """
    In lines and as JSON, with exit code 0.
    """
    path = written(tmp_path / "bank", a_bank((1, 2), (3, 4), source={2: "two"}))
    touchstone = bank_command(monkeypatch, capsys, tmp_path)
    told = touchstone("verify", path, "--no-encoder")
    said = touchstone("verify", path, "--no-encoder", "--json").json

    assert told.code == 0, told.out
    assert "warning: 1 pairs of references of one label are one picture from two sources" in told.out
    assert "1 pairs of near duplicates lie within one source" in told.out
    assert (said["sound"], len(said["warnings"]), said["near_duplicates_within_source"]) == (True, 2, 1)
