"""
Laws of cutting a batch into few fixed sizes.
"""

from hypothesis import given
from hypothesis import strategies as st

from worker.adapters.clip_buckets import BUCKETS, cut


@given(count=st.integers(0, 5000), most=st.sampled_from(BUCKETS))
def test_every_picture_is_in_one_piece(count: int, most: int) -> None:
    """
    The pieces are all pictures, each at most as large as its bucket, and no bucket is larger than the largest allowed.
    """
    pieces = list(cut(count, most))

    assert count == sum(held for held, _ in pieces)
    assert all(0 < held <= bucket <= most and bucket in BUCKETS for held, bucket in pieces)


@given(count=st.integers(1, 5000))
def test_little_is_padded(count: int) -> None:
    """
    What is padded is at most a third of the pictures, or the rest of one of the smallest buckets.
    """
    padded = sum(bucket - held for held, bucket in cut(count))

    assert padded <= max(count / 3, 3)


def test_examples() -> None:
    """
    Full buckets first; a batch that nearly fills one is padded, a small one always.
    """
    assert [(1, 1)] == list(cut(1))
    assert [(3, 4)] == list(cut(3))
    assert [(5, 8)] == list(cut(5))
    assert [(32, 32)] == list(cut(32))
    assert [(30, 32)] == list(cut(30))
    assert [(32, 32), (8, 8)] == list(cut(40))
    assert [(256, 256), (256, 256), (1, 1)] == list(cut(513))
    assert [(4, 4), (4, 4), (1, 1)] == list(cut(9, 4))
