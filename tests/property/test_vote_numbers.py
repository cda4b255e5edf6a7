"""
The soft vote's numbers are, bit for bit, those of its formula over arrays.
"""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.bank_builders import a_neighbourhood
from worker.domain import Neighbourhood
from worker.stages.vote import soft_vote, vote_depth

SIMILARITIES = st.lists(st.floats(-1, 1, allow_nan=False, width=64), min_size=0, max_size=30)
SIZES = st.integers(1, 100_000)


@st.composite
def neighbourhoods(draw: st.DrawFn) -> Neighbourhood:
    """
    Two to four labels of any size, equal similarities among theirs.
    """
    labels = draw(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=2, max_size=4, unique=True))
    found = {label: draw(SIMILARITIES) for label in labels}
    return a_neighbourhood(found, {label: draw(SIZES) for label in labels})


@given(neighbourhood=neighbourhoods(), k=st.integers(1, 12), temperature=st.floats(0.01, 10))
def test_the_vote_is_that_of_the_arrays(neighbourhood: Neighbourhood, k: int, temperature: float) -> None:
    """
    Shares and parts, and who votes.
    """
    sizes, labels = neighbourhood.sizes, list(neighbourhood.sizes)
    union = [(label, one) for label, found in neighbourhood.nearest.items() for one in found]
    union.sort(key=lambda pair: (-pair[1].similarity, pair[1].entry.id))
    depth = vote_depth(k, sizes)
    voters = [pair for pair in union if len(union) <= depth or pair[1].similarity >= union[depth - 1][1].similarity]

    vote = soft_vote(neighbourhood, k=k, temperature=temperature)

    assert [(one.label, one.neighbour) for one in vote.voters] == voters
    if not voters:
        assert vote.shares == dict.fromkeys(sizes, 1 / len(sizes))
        return
    of_voter = np.array([labels.index(label) for label, _ in voters])
    log_sizes = np.log(np.array([sizes[label] for label in labels], dtype=np.float64))
    similarity = np.array([one.similarity for _, one in voters])
    log_weight = similarity / temperature - log_sizes[of_voter]
    log_pseudo = similarity[-1] / temperature - log_sizes.min()
    peak = max(float(log_weight.max()), float(log_pseudo))
    weight = np.exp(log_weight - peak)
    sums = np.bincount(of_voter, weights=weight, minlength=len(labels)) + math.exp(log_pseudo - peak)
    total = float(sums.sum())
    assert [vote.shares[label] for label in labels] == (sums / total).tolist()
    assert [one.share for one in vote.voters] == (weight / total).tolist()
