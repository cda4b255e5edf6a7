"""
The fleet on paper: laws that any fleet keeps, and cases that one can do by hand.
"""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from worker.bench.fleet import Traffic, WorkerModel, departures, simulated
from worker.cli.bench_simulate import simulate

MODEL = WorkerModel(fixed_s=0.010, picture_s=0.005, batch_size=8)


def test_a_lone_upload_waits_for_nobody() -> None:
    """
    Nobody else is on the way: the time of a batch of one, and no deadline, as in the worker's own micro-batches.
    """
    done_s = departures(MODEL, np.array([1.0]))

    assert done_s == pytest.approx([1.0 + 0.015])


def test_a_full_batch_waits_for_nobody() -> None:
    """
    Eight at once are one batch, the ninth is the next and closes when the worker is free.
    """
    done_s = departures(MODEL, np.zeros(9))

    assert done_s[:8] == pytest.approx([0.050] * 8)
    assert done_s[8] == pytest.approx(0.050 + 0.015)


@given(
    gaps=st.lists(st.floats(0, 0.1), min_size=1, max_size=200),
    size=st.integers(1, 16),
)
def test_order_is_kept_and_nobody_is_answered_too_soon_or_too_late(gaps: list[float], size: int) -> None:
    """
    In order of arrival, never before a batch of one could be done, and the whole in at most one batch for each upload.
    """
    model = WorkerModel(0.01, 0.005, size)
    arrivals_s = np.cumsum(gaps)
    done_s = departures(model, arrivals_s)

    assert np.all(np.diff(done_s) >= 0)
    assert np.all(done_s >= arrivals_s + model.batch_s(1) - 1e-9)
    assert done_s[-1] <= arrivals_s[-1] + len(gaps) * model.batch_s(1) + 1e-9


def test_workers_scale_as_far_as_partitions_spread_evenly() -> None:
    """
    With many even keys four workers do almost four times what one does; with four partitions eight do no more.
    """
    even = simulated(MODEL, Traffic(50_000, partitions=64, keys=50_000), [1, 4], load=0.5)
    few = simulated(MODEL, Traffic(50_000, partitions=4, keys=50_000), [4, 8], load=0.5)

    assert even[0].share_of_linear == pytest.approx(1)
    assert even[1].share_of_linear > 0.95
    assert few[1].per_s == pytest.approx(few[0].per_s, rel=0.001)


def test_skew_makes_one_worker_the_limit() -> None:
    """
    The fleet is as fast as its busiest worker lets it: the share of linear is the even share over the busiest.
    """
    (row,) = simulated(MODEL, Traffic(50_000, partitions=64, keys=1000, skew=1.2), [8], load=0.3)

    assert row.share_of_linear < 0.7
    assert row.share_of_linear == pytest.approx(1 / (8 * row.busiest_share), rel=0.01)


def test_bursts_cost_latency_and_not_capacity() -> None:
    """
    The same uploads in bursts wait longer, at the same mean rate.
    """
    (calm,) = simulated(MODEL, Traffic(50_000, partitions=8), [1], load=0.8)
    (wild,) = simulated(MODEL, Traffic(50_000, partitions=8, burst=5), [1], load=0.8)

    assert wild.p99_s > 2 * calm.p99_s
    assert wild.per_s == pytest.approx(calm.per_s)


@pytest.mark.parametrize("wrong", [(-0.1, 1, 8), (0, 0, 8), (0, 1, 0)])
def test_what_no_worker_takes_is_refused(wrong: tuple[float, float, int]) -> None:
    """
    Times below nothing and batches of none.
    """
    with pytest.raises(ValueError, match="out of range"):
        WorkerModel(*wrong)


def test_the_command_prints_one_object() -> None:
    """
    One row for each number of workers, in lists of one length.
    """
    ran = CliRunner().invoke(simulate, ["--picture-ms", "5", "--workers", "1,2", "--uploads", "5000", "--json"])
    found = json.loads(ran.stdout)

    assert ran.exit_code == 0, ran.output
    assert found["workers"] == [1, 2]
    assert found["per_s"][1] > 1.5 * found["per_s"][0]
    assert len(found["p99_ms"]) == 2


@pytest.mark.parametrize("workers", ["", "two", "0,1"])
def test_the_command_names_what_is_no_number_of_workers(workers: str) -> None:
    """
    It says what was found and what was expected.
    """
    ran = CliRunner().invoke(simulate, ["--picture-ms", "5", "--workers", workers])

    assert ran.exit_code == 2
    assert "expected" in ran.output
