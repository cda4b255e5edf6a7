"""
The sizing formula: by hand, and as laws.
"""

import json
import math
from collections.abc import Callable

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from worker.bench.sizing import Demand, kept_bytes, sized
from worker.cli.bench_size import size


def test_by_hand() -> None:
    """
    2,000 a second at the peak, a fifth of them known, of workers that do 500 new or 5,000 known ones.
    """
    demand = Demand(peak_per_s=2000, mean_per_s=500, known=0.2, kept_s=86_400, dim=768, utilisation=0.7)
    found = sized(demand, new_per_s=500, known_per_s=5000)

    # 0.8 / 500 + 0.2 / 5000 = 1.64 ms each: 609.8 a second, of which 426.8 at the peak.
    assert found.workers == 5
    assert found.partitions == 10
    assert found.hottest_per_s == pytest.approx(200)
    assert found.fits
    assert found.redis_bytes == 500 * 0.8 * 86_400 * kept_bytes(768)


@given(
    peak=st.floats(1, 1e5),
    known=st.floats(0, 0.99),
    utilisation=st.floats(0.1, 1),
    new=st.floats(1, 1e4),
)
def test_the_workers_bear_the_peak_and_one_less_would_not(
    peak: float, known: float, utilisation: float, new: float
) -> None:
    """
    What all of them may take is at least the peak, and they are not more than needed.
    """
    demand = Demand(peak_per_s=peak, mean_per_s=peak, known=known, utilisation=utilisation)
    found = sized(demand, new_per_s=new, known_per_s=10 * new)
    each = utilisation / ((1 - known) / new + known / (10 * new))

    assert found.workers * each >= peak * (1 - 1e-9)
    assert found.workers == 1 or (found.workers - 1) * each < peak * (1 + 1e-9)


def test_a_partition_that_no_worker_bears_is_told() -> None:
    """
    Half of all uploads in one partition are more than one worker does.
    """
    demand = Demand(peak_per_s=1000, mean_per_s=1000, hottest_share=0.5)
    found = sized(demand, new_per_s=100, known_per_s=1000)

    assert not found.fits
    assert math.isclose(500, found.hottest_per_s)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: Demand(1, 2), "mean"),
        (lambda: Demand(1, 1, known=1.0), "known"),
        (lambda: Demand(1, 1, hottest_share=-0.1), "hottest_share"),
        (lambda: Demand(1, 1, utilisation=0.0), "utilisation"),
        (lambda: Demand(1, 1, dim=0), "dimension"),
    ],
)
def test_what_cannot_be_is_refused(wrong: Callable[[], Demand], named: str) -> None:
    """
    With the name of what is wrong.
    """
    with pytest.raises(ValueError, match=named):
        wrong()


def test_the_command_prints_one_object_and_warns_of_a_hot_partition() -> None:
    """
    The advice is for people, beside the object for machines.
    """
    usual = ["--peak-per-s", "100", "--new-per-s", "50", "--known-per-s", "500"]
    ran = CliRunner().invoke(size, [*usual, "--json"])
    hot = CliRunner().invoke(size, [*usual, "--hottest-share", "0.9"])
    wrong = CliRunner().invoke(size, [*usual, "--mean-per-s", "200"])

    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["workers"] == 3
    assert "key the uploads by" in hot.stderr
    assert wrong.exit_code == 2
    assert "not above the peak" in wrong.stderr
