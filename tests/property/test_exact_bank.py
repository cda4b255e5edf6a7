"""
The plain bank against sorting everything, ties included.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.heads.reference_bank import _largest


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 20), st.booleans())
def test_the_largest_in_order(seed: int, columns: int, k: int, coarse: bool) -> None:
    """
    The same columns in the same order as a stable sort gives, however many are equal.
    """
    cosines = np.random.default_rng(seed).normal(size=(6, columns)).round(1 if coarse else 6).astype(np.float32)

    assert np.argsort(-cosines, axis=1, kind="stable")[:, :k].tolist() == _largest(cosines, k).tolist()
