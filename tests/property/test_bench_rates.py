"""
Laws of the rate of a round, whatever its batches.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.bench.uploads import rate_of


@given(
    size=st.integers(1, 64),
    batches=st.integers(3, 40),
    batch_s=st.floats(0.05, 5.0),
    burst_share=st.floats(0.0, 0.2),
    warm_share=st.integers(2, 8),
)
def test_batches_of_equal_time_have_the_rate_of_one(
    size: int, batches: int, batch_s: float, burst_share: float, warm_share: int
) -> None:
    """
    Batch after batch of the same size and time gives that size over that time, wherever the warm-up ends.

    Each batch's outcomes are told within a fifth of the time of one upload, as a producer sends them.
    """
    step_s = burst_share * batch_s / size / size
    made_s = [(batch + 1) * batch_s + number * step_s for batch in range(batches) for number in range(size)]

    found = rate_of(made_s, began_s=0.0, warm=max(1, len(made_s) // warm_share))

    assert found == pytest.approx(size / batch_s, rel=1e-6)


@given(made_s=st.lists(st.floats(0.001, 1e6), min_size=1, max_size=50), warm=st.integers(1, 60))
def test_a_rate_is_above_zero_and_at_most_all_uploads(made_s: list[float], warm: int) -> None:
    """
    No arrangement of outcomes gives a rate that is not above 0.
    """
    assert rate_of(made_s, began_s=0.0, warm=warm) > 0
