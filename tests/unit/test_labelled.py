"""
Weighing heads within sources: what only tells one source from another must count for nothing.
"""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from tests.head_worlds import full_table, references_of
from worker.fitting.calibrate import fit_scale
from worker.fitting.labelled import MAX_PAIRS, Labelled, paired_sources
from worker.fitting.out_of_fold import fitted_fusion

NAMES = ("trace", "source")


def world(seed: int = 0) -> tuple[NDArray[np.float64], Labelled]:
    """
    Two sources of one label each and four of both; one head sees a trace of the label, the other who collected it.
    """
    rng = np.random.default_rng(seed)
    source = np.repeat(np.arange(6), 100)
    positive = np.where(source == 0, False, np.where(source == 1, True, np.arange(600) % 2 == 0))
    trace = rng.normal(size=600) + 1.0 * positive
    known = rng.normal(size=600) + 6.0 * (source == 1) - 6.0 * (source == 0)
    numbers = np.where(source < 2, -1, source - 2)
    return np.stack([trace, known], axis=1), Labelled(positive, np.ones(600), numbers)


def test_a_head_that_knows_the_source_alone_weighs_nothing_within_sources() -> None:
    """
    Compared with all it looks as good as the trace; compared within sources it is worth a coin.
    """
    scores, labelled = world()
    anyhow = Labelled(labelled.positive, labelled.weights)
    _, within = fitted_fusion(NAMES, scores, labelled, stacked=True)
    _, pooled = fitted_fusion(NAMES, scores, anyhow, stacked=True)

    assert within.weights[0] > 5 * within.weights[1]
    assert pooled.weights[1] > 0.3 * pooled.weights[0]


def test_the_direction_of_a_head_is_that_within_sources() -> None:
    """
    Simpson's paradox: over all pictures higher scores go with the label, in every source lower ones do.
    """
    source = np.repeat(np.arange(3), 60)
    positive = np.concatenate([np.arange(60) < 10, np.arange(60) < 30, np.arange(60) < 50])
    score = source * 10.0 - positive + np.linspace(0, 0.1, 180)
    paired = Labelled(positive, np.ones(180), source)

    assert roc_auc_score(positive, score) > 0.5
    assert fit_scale("head", score, Labelled(positive, np.ones(180))).direction == 1.0
    assert fit_scale("head", score, paired).direction == -1.0


def test_share_above_within_sources_is_the_mean_auroc_by_scarcer_label() -> None:
    """
    Against scikit-learn, source by source, with a score that is missing left out.
    """
    scores, labelled = world(3)
    score = scores[:, 0].copy()
    score[250] = np.nan
    wanted, heft = [], []
    for members in labelled.sources:
        inside = members & np.isfinite(score)
        wanted.append(roc_auc_score(labelled.positive[inside], score[inside]))
        heft.append(min(labelled.positive[inside].sum(), (~labelled.positive[inside]).sum()))

    assert labelled.share_above(score) == pytest.approx(np.average(wanted, weights=heft))


def test_every_contrast_is_of_one_source_and_of_both_labels() -> None:
    """
    All of them where they are few; a source weighs as much as it has pictures of its scarcer label.
    """
    positive = np.array([True, True, False, True, False, False, False])
    source = np.array([0, 0, 0, 1, 1, 1, -1])
    found = Labelled(positive, np.ones(7), source).contrasts()
    pairs = list(zip(found.positive.tolist(), found.other.tolist(), strict=True))

    assert [(0, 2), (1, 2), (3, 4), (3, 5)] == pairs
    assert [0.5, 0.5, 0.5, 0.5] == found.weight.tolist()


def test_of_a_large_source_as_many_contrasts_are_drawn_as_are_allowed() -> None:
    """
    And the same ones every time.
    """
    positive = np.arange(400) % 2 == 0
    labelled = Labelled(positive, np.ones(400), np.zeros(400, np.int64))
    first, again = labelled.contrasts(), labelled.contrasts()

    assert MAX_PAIRS == len(first.positive)
    assert np.array_equal(first.other, again.other)
    assert positive[first.positive].all()
    assert not positive[first.other].any()
    assert first.weight.sum() == pytest.approx(200)


def test_sources_pair_where_three_hold_enough_of_both_labels() -> None:
    """
    With two, or with too few pictures of a label in each, all are compared with all.
    """
    positive = np.arange(90) % 2 == 0
    features = full_table(0, 90)
    many = paired_sources(references_of(features, positive, sources=3))

    assert many is not None
    assert {0, 1, 2} == set(many.tolist())
    assert paired_sources(references_of(features, positive, sources=2)) is None
    assert paired_sources(references_of(features, positive, sources=12)) is None
