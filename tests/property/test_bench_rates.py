"""
Laws of the rate of a round, whatever its batches.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.bench.roofline import roofline_fraction
from worker.bench.uploads import rate_of


@given(
    size=st.integers(1, 64),
    batches=st.integers(1, 40),
    decode_s=st.floats(0.0, 0.05),
    encode_s=st.floats(0.001, 0.1),
    cores=st.integers(1, 16),
    ahead=st.floats(0.0, 1.0),
)
def test_no_worker_is_above_the_roofline_for_what_it_did_ahead(
    size: int, batches: int, decode_s: float, encode_s: float, *, cores: int, ahead: float
) -> None:
    """
    Cores that never rest are at the roofline, whatever share of all decoding they do before the first micro-batch.
    """
    uploads = size * batches
    done_s = ahead * uploads * decode_s
    made_s = []
    for _ in range(batches):
        done_s += size * (encode_s + (1 - ahead) * decode_s)
        made_s += [done_s / cores] * size

    found = roofline_fraction(rate_of(made_s, began_s=0.0), {"decode": decode_s, "encode": encode_s}, cores)

    assert found == pytest.approx(1.0, rel=1e-6)


@given(made_s=st.lists(st.floats(0.001, 1e6), min_size=1, max_size=50))
def test_a_rate_is_above_zero(made_s: list[float]) -> None:
    """
    No arrangement of outcomes gives a rate that is not above 0.
    """
    assert rate_of(made_s, began_s=0.0) > 0
