"""
The short form of every campaign: the code of `make soak`, with fewer rounds and fewer uploads.
"""

from pathlib import Path

import pytest

from tests.soak.campaigns import harmed, servers_harmed
from tests.soak.memory import level
from tests.soak.scale import SHORT
from tests.soak.tally import as_table
from tests.soak.worker_faults import kills
from tests.worker_rig import Instruments, small_instruments

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def instruments(tmp_path_factory: pytest.TempPathFactory) -> Instruments:
    """
    A small encoder and its bank.
    """
    return small_instruments(tmp_path_factory.mktemp("instruments"))


def test_killed_workers_lose_nothing(instruments: Instruments, tmp_path: Path) -> None:
    """
    Two workers are killed in turn, a new one in the place of each, exactly once: every upload has its one outcome.
    """
    tally = harmed(instruments, tmp_path, "exactly_once", lambda _: [kills()], SHORT.killing())

    assert tally.good, as_table([tally])
    assert (SHORT.kills, SHORT.kills * SHORT.wave, 0) == (tally.faults, tally.sent, tally.duplicates)
    assert tally.terminal == tally.sent


def test_harmed_servers_lose_nothing(instruments: Instruments, tmp_path: Path) -> None:
    """
    Brokers, coordinator, group and Redis fail in turn under one worker, at least once: every upload has its outcome.
    """
    tally = servers_harmed(instruments, tmp_path, SHORT, delivery="at_least_once")

    assert tally.good, as_table([tally])
    assert tally.terminal == tally.sent == tally.faults * SHORT.wave > 0


@pytest.mark.alone
def test_memory_stays_level(instruments: Instruments, tmp_path: Path) -> None:
    """
    Over uploads and loads of a bank the resident memory is what it was early on, within 5 %.
    """
    (tally,) = level(instruments, tmp_path, SHORT)

    assert tally.good, as_table([tally])
    assert (SHORT.memory_uploads, SHORT.memory_loads) == (tally.terminal, tally.faults)
