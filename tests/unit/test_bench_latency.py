"""
What a measurement of latency comes to: its arithmetic, and that no figure is told of a run in which something was lost.
"""

from collections.abc import Mapping
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest

from tests.bank_builders import a_picture
from tests.stand_in_platform import Answer, StandInPlatform, at_once
from worker.bench import latency, stress_result
from worker.bench.latency import (
    LatencyBench,
    LatencyPlan,
    LatencyRounds,
    figures_of,
    full_batch_ms,
    mean_batch_size,
    mean_encode_ms,
    summary_of,
    target_ms,
    targets_of,
)
from worker.bench.report_parts import LATENCY_ROWS, LOADED_ROW
from worker.bench.stress import StressFailed
from worker.errors import WorkerCrashed

PLAN = LatencyPlan(uploads=20, burst=20, rounds=2, loads=(0.5, 0.9), capacity_per_s=400.0, patience_s=1.0)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nobody waits for outcomes that do not come.
    """
    monkeypatch.setattr(latency, "SETTLE_S", 0.01)
    # A busy machine is no slow sender; the test of one says how slow it is.
    monkeypatch.setattr(stress_result, "MOST_LATE_S", 30.0)


def measured(platform: StandInPlatform, root: Path) -> LatencyRounds:
    """
    Two rounds against this platform, whose workers take two pictures at once.
    """
    pictures = [a_picture(1, size=(32, 32), name="JPEG")]
    bench = LatencyBench(PLAN, platform, root=root, pictures=pictures, batch_size=2)
    return bench.measured(lambda *_: None)


def encoded(batch_size: int | None, encode_ms: float | None) -> Mapping[str, Any]:
    """
    The timing of one verdict, as far as it is looked at.
    """
    return {"batch_size": batch_size, "encode_ms": encode_ms}


def test_a_full_micro_batch_takes_what_full_ones_took() -> None:
    """
    The median over those that were full, else over the largest; uploads that were known count for nothing.
    """
    some = [encoded(1, 5.0), encoded(4, 18.0), encoded(4, 20.0), encoded(4, 30.0), encoded(None, None)]

    assert 20.0 == full_batch_ms(some, 4)
    assert 20.0 == full_batch_ms(some, 8)
    with pytest.raises(ValueError, match="nothing was encoded"):
        full_batch_ms([encoded(None, None)], 4)


def test_the_mean_micro_batch_is_a_mean_of_micro_batches() -> None:
    """
    Three verdicts of one batch of three and one of a batch of one: two batches, of two on the mean.
    """
    assert 2.0 == mean_batch_size([encoded(3, 1.0)] * 3 + [encoded(1, 1.0)])
    assert 0.0 == mean_batch_size([encoded(None, None)])


def test_the_mean_encoding_is_of_micro_batches_too() -> None:
    """
    One batch of three in 9 ms and one of one in 3: 6 ms, though three of four verdicts tell 9.
    """
    assert 6.0 == pytest.approx(mean_encode_ms([encoded(3, 9.0)] * 3 + [encoded(1, 3.0), encoded(None, None)]))
    with pytest.raises(ValueError, match="nothing was encoded"):
        mean_encode_ms([encoded(None, None)])


def test_the_target_is_told_for_full_and_for_mean_micro_batches(tmp_path: Path) -> None:
    """
    Where micro-batches at a load are quicker than full ones, p99 is held against both, and each says which it is.
    """
    found = measured(StandInPlatform(), tmp_path)
    found.full_batch_ms = [20.0] * PLAN.rounds
    summary = summary_of(found, deadline_ms=20.0, batch_size=8)
    figures = {one.name: one.median for one in figures_of(found, 20.0)}
    loads = summary["loads"]
    assert isinstance(loads, dict)
    half = loads["0.5"]

    assert 5.0 == half["encode_ms"] == figures["encode, mean micro-batch at 50%"]
    assert half["p99_of_target_mean_batch"] == pytest.approx(2 * half["p99_of_target"], rel=0.01)
    assert figures["p99 of target at 50%, mean micro-batch"] == pytest.approx(
        2 * figures["p99 of target at 50%, full micro-batch"]
    )


def test_all_loads_take_turns_and_are_told(tmp_path: Path) -> None:
    """
    Each load has a round in each round; the target is the deadline and two full micro-batches, and no file is left.
    """
    found = measured(StandInPlatform(), tmp_path)
    summary = summary_of(found, deadline_ms=20.0, batch_size=2)
    figures = {one.name: one for one in figures_of(found, 20.0)}

    assert {0.5: 2, 0.9: 2} == {load: len(rounds) for load, rounds in found.at_load.items()}
    assert 30.0 == target_ms(20.0, 5.0) == summary["target_p99_ms"]
    assert (5.0, 2) == (summary["encode_batch_ms"], summary["batch_size"])
    assert isinstance(loads := summary["loads"], dict)
    assert loads["0.5"]["p99_of_target"] == pytest.approx(loads["0.5"]["p99_ms"] / 30.0, rel=0.2)
    assert (2.0, 6.0) == (figures["micro-batch at 50%"].median, figures["p99 in the worker at 90%"].median)
    assert [] == list(tmp_path.iterdir())
    (target,) = targets_of(found, 20.0)
    assert target.measured == pytest.approx(loads["0.5"]["p99_of_target"], rel=1e-3)
    rows = (*LATENCY_ROWS, LOADED_ROW)
    assert [target.name] == [row.target for row in rows if row.target]
    told: Any = summary
    assert all(isinstance(reduce(getitem, row.path, told), float) for row in rows)


def lost(number: int) -> list[Answer]:
    """
    Number 3 is never answered.
    """
    return [] if number == 3 else at_once(number)


def test_no_latency_is_told_of_a_run_that_lost_something(tmp_path: Path) -> None:
    """
    It says what was lost.
    """
    with pytest.raises(WorkerCrashed, match=r"1 uploads have no outcome.*-3 at 1@1"):
        measured(StandInPlatform(lost), tmp_path)


def test_no_latency_is_told_of_uploads_that_were_sent_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A sender that cannot hold the rate would measure itself.
    """
    monkeypatch.setattr(stress_result, "MOST_LATE_S", 0.1)
    with pytest.raises(StressFailed, match="uploads a second were sent where"):
        measured(StandInPlatform(send_takes_s=0.02), tmp_path)


def test_no_latency_is_told_of_uploads_that_were_not_judged(tmp_path: Path) -> None:
    """
    A failure is quicker than a judgement.
    """
    with pytest.raises(WorkerCrashed, match="20 of 20 uploads were not judged"):
        measured(StandInPlatform(status="failed"), tmp_path)
