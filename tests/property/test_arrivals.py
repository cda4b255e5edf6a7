"""
The laws of open-loop arrivals and of percentiles.
"""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.bench.arrivals import Arrivals, arrival_times, rate_of
from worker.bench.latencies import Latencies, percentile

kinds = st.sampled_from(["poisson", "even"])
rates = st.floats(0.01, 10_000.0)
counts = st.integers(1, 400)
seconds = st.floats(0, 1e4, allow_nan=False)


@given(kind=kinds, rate=rates, count=counts, seed=st.integers(0, 2**32))
def test_arrivals_are_as_many_as_asked_and_never_fall(kind: Arrivals, rate: float, count: int, seed: int) -> None:
    """
    As many times as uploads, none before the beginning, in rising order, and the same ones from the same seed.
    """
    times = arrival_times(kind, rate=rate, count=count, seed=seed)

    assert count == len(times)
    assert times[0] >= 0
    assert sorted(times) == times
    assert arrival_times(kind, rate=rate, count=count, seed=seed) == times


@given(rate=rates, count=st.integers(2, 400))
def test_even_arrivals_have_the_rate_exactly(rate: float, count: int) -> None:
    """
    Between the first and the last of them lie all others at the same distance.
    """
    times = arrival_times("even", rate=rate, count=count)

    assert rate_of(times) == pytest.approx(rate)


@given(seed=st.integers(0, 2**32), rate=rates)
def test_poisson_arrivals_have_the_rate_on_the_mean(seed: int, rate: float) -> None:
    """
    Of 4,000 gaps the mean is within a tenth of 1 / rate: six times its standard error.
    """
    times = arrival_times("poisson", rate=rate, count=4_000, seed=seed)

    assert abs(times[-1] * rate / 4_000 - 1) < 0.1


def test_poisson_arrivals_are_irregular() -> None:
    """
    Gaps vary as much as they are long: their standard deviation is their mean, which even arrivals have none of.
    """
    times = arrival_times("poisson", rate=10.0, count=4_000, seed=1)
    gaps = [later - sooner for sooner, later in pairwise(times)]
    mean = math.fsum(gaps) / len(gaps)
    deviation = math.sqrt(math.fsum((gap - mean) ** 2 for gap in gaps) / len(gaps))

    assert 0.9 < deviation / mean < 1.1


@pytest.mark.parametrize(("rate", "count"), [(0.0, 1), (-1.0, 1), (math.nan, 1), (1.0, 0)])
def test_no_rate_and_no_count_are_refused(rate: float, count: int) -> None:
    """
    A rate of nothing would wait for ever.
    """
    with pytest.raises(ValueError, match="expected both above 0"):
        arrival_times("poisson", rate=rate, count=count)


@given(values=st.lists(seconds, min_size=1, max_size=200), share=st.floats(0, 1))
def test_a_percentile_was_measured_and_is_the_least_that_holds(values: list[float], share: float) -> None:
    """
    It is one of the values; at least this share lies at or below it, and less of them below the next smaller one.
    """
    ordered = sorted(values)
    found = percentile(ordered, share)
    below = [value for value in ordered if value < found]

    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered)
    assert not below or len(below) < share * len(ordered)


@given(values=st.lists(seconds, min_size=1, max_size=200), missing=st.integers(0, 50))
def test_who_is_missing_makes_nothing_faster(values: list[float], missing: int) -> None:
    """
    Percentiles rise, and an upload without an answer never lowers one; with any, the slowest is never.
    """
    alone, beside = Latencies.of(values), Latencies.of(values, missing=missing)
    pairs = [(alone.p50_ms, beside.p50_ms), (alone.p90_ms, beside.p90_ms), (alone.p99_ms, beside.p99_ms)]

    assert all(late is None or (soon is not None and soon <= late) for soon, late in pairs)
    assert (beside.max_ms is None) == (missing > 0)
    assert alone.mean_ms == beside.mean_ms
    assert alone.p50_ms is not None
    assert alone.max_ms is not None
    assert alone.p50_ms <= alone.max_ms


def test_known_percentiles() -> None:
    """
    Of 1 to 100 milliseconds the ninetieth percentile is 90 ms; of nothing there is none.
    """
    found = Latencies.of(number / 1000 for number in range(1, 101))

    assert Latencies(50.0, 90.0, 99.0, 100.0, 50.5) == found
    assert Latencies(None, None, None, None, None) == Latencies.of([])
    assert Latencies.of([0.001] * 98, missing=2).p99_ms is None
