"""
What both learnt projections stand on: repeatable torch, whole groups held out, whitening, AUROC.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tests.projection_worlds import PER_SUBJECT, world
from worker.fitting.contrastive_training import (
    Descent,
    auroc,
    group_weights,
    held_out,
    learnable,
    quiet_torch,
    whitened_directions,
)


def test_quiet_torch_leaves_no_trace() -> None:
    """
    Neither the generator nor the thread count of the process is another after a fit, even one that failed.
    """
    torch.set_num_threads(2)
    before = torch.random.get_rng_state()

    def failing() -> None:
        with quiet_torch(3):
            assert torch.get_num_threads() == 1
            torch.rand(5)
            raise KeyError("a fit that failed")

    with pytest.raises(KeyError):
        failing()

    assert torch.get_num_threads() == 2
    assert torch.equal(before, torch.random.get_rng_state())


def test_descent_is_adam_with_decoupled_decay() -> None:
    """
    Twenty steps end where the paper's algorithm 2 ends, beside a parameter that the loss does not depend on.
    """
    start, target = np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, 2.0])
    value, mean, square = start.copy(), np.zeros(3), np.zeros(3)
    for step in range(1, 21):
        gradient = 2 * (value - target)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        adam = mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        value = value - 0.1 * (adam + 0.05 * value)
    learnt, aside = torch.from_numpy(start.copy()).requires_grad_(), torch.ones(2, requires_grad=True)
    descent = Descent([aside, learnt], learning_rate=0.1, weight_decay=0.05)
    for _ in range(20):
        descent.step((learnt - torch.from_numpy(target)).square().sum())

    assert np.allclose(value, learnt.detach().numpy(), atol=1e-9)
    assert torch.equal(torch.ones(2), aside)


def test_quiet_torch_draws_the_same_for_a_seed() -> None:
    """
    What is drawn depends on the seed alone.
    """
    drawn = []
    for seed in (3, 3, 4):
        with quiet_torch(seed):
            drawn.append(torch.rand(4))

    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@given(seed=st.integers(0, 1000))
def test_whole_groups_are_held_out(seed: int) -> None:
    """
    No source has pictures on both sides, either label is on both, and about a fifth is out.
    """
    references = world(range(10))
    out = held_out(references, seed)
    sources = np.array(references.source)

    assert not set(sources[out]) & set(sources[~out])
    assert out[references.positive].mean() == pytest.approx(0.2)
    assert out[~references.positive].mean() == pytest.approx(0.2)


@pytest.mark.parametrize("size", [4, 5, PER_SUBJECT // 2])
def test_single_source_is_split_by_pictures(size: int) -> None:
    """
    Where all references are of one source, single pictures of both labels are held out and at least half remain.
    """
    references = world([1])
    rows = [*range(size), *range(PER_SUBJECT - size, PER_SUBJECT)]
    references = references.take(rows)
    out = held_out(references, 0)

    for side in (references.positive, ~references.positive):
        assert 0 < out[side].sum() <= size / 2


def test_too_few_of_a_label_are_refused() -> None:
    """
    Three reals are too few to learn from, and the message says how many there are and how many it takes.
    """
    references = world([1, 2])
    few = references.take([*np.flatnonzero(~references.positive)[:3], *np.flatnonzero(references.positive)])

    with pytest.raises(ValueError, match=r"style .* at least 4 .* found 24 of the positive label and 3 others"):
        learnable(few, "style", most=100, seed=0)


def test_no_more_than_asked_are_learnt_from() -> None:
    """
    A large label is sampled without repetition, a small one is kept whole.
    """
    references = world(range(3))
    uneven = references.take([*np.flatnonzero(references.positive), *np.flatnonzero(~references.positive)[:8]])
    known = learnable(uneven, "style", most=20, seed=0)

    assert (20, 8) == (int(known.positive.sum()), int((~known.positive).sum()))
    assert len(known) == len(set(known.content))


def test_large_group_is_drawn_less_often_per_picture() -> None:
    """
    A source with four times the pictures is drawn twice as often as a whole; weights sum to 1 per label.
    """
    references = world([1, 2])
    reals = np.flatnonzero(~references.positive)
    known = references.take([*reals[:12], *reals[12:15], *np.flatnonzero(references.positive)])
    weights = group_weights(known)

    assert pytest.approx(2.0) == weights[:12].sum() / weights[12:15].sum()
    assert pytest.approx(1.0) == weights[known.positive].sum()
    assert pytest.approx(1.0) == weights[~known.positive].sum()


@pytest.mark.parametrize("count", [30, 500], ids=["fewer rows than columns", "more rows than columns"])
def test_whitening_takes_differences_in_variance_away(count: int) -> None:
    """
    With power 1 the widest and the narrowest kept direction differ by less than before, and none are correlated.
    """
    random = np.random.default_rng(2)
    vectors = random.normal(size=(count, 40)) * np.geomspace(1, 0.1, 40)
    weights = np.ones(count)
    whitened = whitened_directions(vectors, weights, most=10, power=1.0)(vectors)
    plain = whitened_directions(vectors, weights, most=10, power=0.0)(vectors)
    variance = whitened.var(axis=0)

    assert (count, 10) == whitened.shape
    assert variance.max() / variance.min() < 0.6 * plain.var(axis=0).max() / plain.var(axis=0).min()
    assert np.allclose(np.diag(variance), np.cov(whitened.T, bias=True), atol=1e-9)
    assert pytest.approx(1.0) == (whitened**2).mean()


def test_references_that_do_not_differ_are_refused() -> None:
    """
    Equal features teach nothing, and that is said instead of dividing by nothing.
    """
    with pytest.raises(ValueError, match="all the same features"):
        whitened_directions(np.full((5, 3), 0.5), np.ones(5), most=3, power=1.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2))
def test_auroc_is_that_of_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    """
    Ties counted half, as scikit-learn does.
    """
    score = np.array([float(value) for value, _ in rows])
    positive = np.array([label for _, label in rows])
    if positive.all() or not positive.any():
        return

    assert pytest.approx(roc_auc_score(positive, score)) == auroc(score, positive)
