"""
The short form of every campaign: the code of `make soak`, with fewer rounds and fewer uploads.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.soak.campaigns import harmed, servers_harmed
from tests.soak.memory import level
from tests.soak.rounds import Fault
from tests.soak.scale import SHORT
from tests.soak.tally import as_table
from tests.soak.worker_faults import fences, freezes, kills, terminations
from tests.worker_rig import Instruments, small_instruments
from worker.dev.redis_server import EmbeddedRedis

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def instruments(tmp_path_factory: pytest.TempPathFactory) -> Instruments:
    """
    A small encoder and its bank.
    """
    return small_instruments(tmp_path_factory.mktemp("instruments"))


def test_harmed_workers_lose_nothing(instruments: Instruments, tmp_path: Path) -> None:
    """
    One of two workers after the other is killed, told to stop, frozen and fenced, exactly once: each upload ends once.
    """

    def faults(redis: EmbeddedRedis) -> Sequence[Fault]:
        return [kills(), *terminations(redis, "loading", "draining"), freezes(), fences()]

    tally = harmed(instruments, tmp_path, "exactly_once", faults, SHORT)

    assert tally.good, as_table([tally])
    assert tally.terminal == tally.sent == tally.faults * SHORT.wave > 0
    # Who was fenced, and nobody else.
    assert (1, 0) == (tally.crashes, tally.duplicates)


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
