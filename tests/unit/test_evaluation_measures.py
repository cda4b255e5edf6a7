"""
Every measure of the evaluation against scikit-learn or its definition by hand.
"""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, balanced_accuracy_score, brier_score_loss, roc_auc_score

from worker.evaluation.comparison import compare, verdict
from worker.evaluation.drawing import bootstrap
from worker.evaluation.measures import (
    ScoreColumn,
    expected_calibration_error,
    false_positive_rate,
    logistic,
    measure,
    risk_coverage,
    true_positive_rate,
)
from worker.evaluation.resampling import (
    AreaUnderRoc,
    AveragePrecision,
    BalancedAccuracy,
    Interval,
    MeanOverSets,
    credit,
)


def scores(seed: int, n: int = 60, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """
    Labels and scores that overlap; with ties every score is one of a few.
    """
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    positive[:2] = (True, False)
    score = rng.normal(0, 1, n) + positive
    return positive, np.round(score) if ties else score


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_weighted_draw_is_scikit_learns_sample_weight(seed: int, ties: bool) -> None:
    """
    Average precision and area of every draw are those that scikit-learn finds with the draw's weights.
    """
    positive, score = scores(seed, ties=ties)
    draws = bootstrap(positive, 4, seed).draws
    precision = AveragePrecision()(draws, positive, score)
    area = AreaUnderRoc()(draws, positive, score)

    for row, weight in enumerate(draws):
        assert average_precision_score(positive, score, sample_weight=weight) == pytest.approx(precision[row], abs=1e-9)
        assert roc_auc_score(positive, score, sample_weight=weight) == pytest.approx(area[row], abs=1e-9)


def test_balanced_accuracy_at_the_threshold() -> None:
    """
    A score above the threshold says generated, one below real; one on it is half right, whatever its label is.
    """
    positive, score = scores(3)
    whole = np.ones((1, len(score)), np.float32)
    found = BalancedAccuracy()(whole, positive, score)
    tied = BalancedAccuracy()(whole, positive, np.zeros(len(score)))

    assert balanced_accuracy_score(positive, score > 0) == pytest.approx(found[0])
    assert tied[0] == 0.5
    assert credit(np.array([2.0, 0.0, -1.0] * 2), np.arange(6) < 3).tolist() == [1.0, 0.5, 0.0, 0.0, 0.5, 1.0]


def test_every_draw_has_as_many_of_each_class() -> None:
    """
    The bootstrap is stratified: a draw never changes the base rate.
    """
    positive, _ = scores(4)
    draws = bootstrap(positive, 50, 0).draws

    assert np.all(draws[:, positive].sum(axis=1) == positive.sum())
    assert np.all(draws.sum(axis=1) == len(positive))


def test_the_interval_shrinks_with_the_number_of_pictures() -> None:
    """
    Sixteen times the pictures give about a quarter of the width, and the value lies inside.
    """
    few, many = (
        bootstrap(positive, 400, 0).of(positive, AreaUnderRoc(), score)
        for positive, score in (scores(1, 100), scores(1, 1600))
    )

    for found in (few, many):
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.value <= found.high
    assert (few.high or 0) - (few.low or 0) > 2.5 * ((many.high or 0) - (many.low or 0))


def test_calibration_error_by_hand() -> None:
    """
    Two bins of two: |0.15 - 0| and |0.85 - 0.5|, each weighed by half.
    """
    positive = np.array([False, False, True, False])
    found = expected_calibration_error(positive, np.array([0.1, 0.2, 0.8, 0.9]), bins=2)

    assert found == pytest.approx((0.15 + 0.35) / 2)


def test_a_rate_is_read_off_only_where_reals_support_it() -> None:
    """
    At 5 % two hundred reals leave ten above the threshold; a hundred and ninety leave nine, which is too few.
    """
    score = np.concatenate([np.arange(200.0), [188.5, 189.5, 500.0]])
    positive = np.arange(203) >= 200

    assert true_positive_rate(positive, score, 0.05) == pytest.approx(2 / 3)
    assert true_positive_rate(positive[10:], score[10:], 0.05) is None
    assert true_positive_rate(positive, score, 0.01) is None


def test_the_false_positive_interval_is_exact() -> None:
    """
    Clopper-Pearson, as SciPy has it; none of ten reals flagged still leaves 31 %.
    """
    found = false_positive_rate(np.arange(100) < 4, 0.05)
    reference = stats.binomtest(4, 100).proportion_ci(0.95, method="exact")
    none = false_positive_rate(np.zeros(10, bool), 0.05)

    assert (reference.low, reference.high) == pytest.approx((found.low, found.high))
    assert (4, 100) == (found.flagged, found.n)
    assert none.low == 0.0
    assert none.high == pytest.approx(1 - 0.025**0.1)


def test_risk_falls_to_the_error_rate_of_all() -> None:
    """
    The most confident picture first; at full coverage the risk is the error rate.
    """
    positive, score = scores(6)
    coverage, risk = risk_coverage(positive, score)

    assert coverage[-1] == 1.0
    assert risk[-1] == pytest.approx(np.mean((score >= 0) != positive))
    assert risk[0] == float((score[np.argmax(np.abs(score))] >= 0) != positive[np.argmax(np.abs(score))])


@pytest.mark.parametrize("ties", [False, True])
def test_risk_and_coverage_are_those_of_a_plain_loop(ties: bool) -> None:
    """
    Picture by picture, the most confident first; where several are equally confident, their mean error stands for each.
    """
    positive, score = scores(11, 90, ties=ties)
    errors = [0.5 if value == 0 else float((value > 0) != label) for value, label in zip(score, positive, strict=True)]
    expected: list[float] = []
    so_far = 0.0
    for value in sorted(np.abs(score).tolist(), reverse=True):
        alike = [error for error, other in zip(errors, np.abs(score).tolist(), strict=True) if other == value]
        so_far += sum(alike) / len(alike)
        expected.append(so_far / (len(expected) + 1))
    coverage, risk = risk_coverage(positive, score)

    assert coverage.tolist() == pytest.approx([(at + 1) / 90 for at in range(90)])
    assert risk.tolist() == pytest.approx(expected)


def test_other_sources_make_wider_intervals() -> None:
    """
    Where sources differ, the interval over sources is the wider one and decides; with one source there is none.
    """
    rng = np.random.default_rng(0)
    source = np.repeat(np.arange(6), 60)
    positive = np.tile(np.arange(60) < 30, 6)
    score = rng.normal(size=360) + positive * np.array([3.0, 3.0, 3.0, -2.0, 3.0, -2.0])[source]
    names = [f"source {at}" for at in source]
    found = bootstrap(positive, 400, 0, names).of(positive, AreaUnderRoc(), score)
    alone = bootstrap(positive, 40, 0, ["one"] * 360).of(positive, AreaUnderRoc(), score)
    widest = found.widest

    assert widest is not None
    assert None not in (found.low, found.high, found.low_sources, found.high_sources)
    assert widest == (found.low_sources, found.high_sources)
    assert widest[1] - widest[0] > 2 * ((found.high or 0) - (found.low or 0))
    assert (alone.low_sources, alone.high_sources) == (None, None)
    assert verdict(Interval(0.1, 0.05, 0.15, -0.1, 0.3), enough=True) == "too few to tell"
    assert verdict(Interval(0.1, 0.05, 0.15, 0.02, 0.3), enough=True) == "yes"


def test_a_draw_of_sources_holds_whole_sources() -> None:
    """
    A source that was drawn twice gives twice as many pictures of each of its labels, one that was not gives none.
    """
    positive = np.array([True, False, False] * 4)
    names = np.repeat(["a", "b", "c", "d"], 3)
    draws = bootstrap(positive, 60, 0, names.tolist()).of_sources
    assert draws is not None
    times = np.stack([draws[:, (names == name) & positive].sum(axis=1) for name in "abcd"], axis=1)
    reals = np.stack([draws[:, (names == name) & ~positive].sum(axis=1) for name in "abcd"], axis=1)

    assert np.all(times.sum(axis=1) == 4)
    assert np.array_equal(reals, 2 * times)
    assert times.max() > 1


def test_no_rate_is_stated_without_a_guarantee() -> None:
    """
    With a reason there is no number, however many reals were not flagged.
    """
    found = false_positive_rate(np.zeros(50, bool), 0.01, "the calibration has 9 reals")

    assert (found.value, found.low, found.high, found.flagged) == (None, None, None, None)
    assert (50, "the calibration has 9 reals") == (found.n, found.reason)


def test_measures_of_a_column() -> None:
    """
    A picture of which nothing was said counts with no evidence; the worst generator needs five pictures.
    """
    positive = np.array([True] * 8 + [False] * 8)
    generator = ["a"] * 5 + ["b"] * 3 + ["-"] * 8
    score = np.array([2.0, 2.0, 2.0, 2.0, -1.0, -3.0, -3.0, -3.0, *([-2.0] * 7), np.nan])
    found = measure(ScoreColumn("x", score), positive, generator, bootstrap(positive, 20, 0), held_out=["a"] * 16)
    filled = np.where(np.isnan(score), 0.0, score)

    assert found.worst is not None
    assert ("a", 5, 0.8) == (found.worst.name, found.worst.pictures, found.worst.recall)
    assert [0.8, 0.0] == [row.recall for row in found.generators]
    assert found.said == 15 / 16
    assert found.brier == pytest.approx(brier_score_loss(positive, logistic(filled)))
    assert found.real_accuracy.value == 7.5 / 8
    assert {0.05: None, 0.01: None, 0.001: None} == found.tpr_at


def test_a_rule_that_is_no_probability_has_no_calibration() -> None:
    """
    A difference of similarities has neither calibration error nor Brier score.
    """
    positive, score = scores(8)
    column = ScoreColumn("rule", score, probability=False)
    found = measure(column, positive, ["g"] * 60, bootstrap(positive, 20, 0), held_out=["a"] * 60)

    assert found.ece is None
    assert found.brier is None


def test_comparison_says_when_it_cannot_tell() -> None:
    """
    A far better column is better, the same one cannot be told apart, a far worse one is not better; few are too few.
    """
    positive, score = scores(9, 400)
    good = ScoreColumn("good", score + 3.0 * positive)
    plain = ScoreColumn("plain", score)
    draws = bootstrap(positive, 300, 0)
    ours = compare(good, [plain, good], positive, draws, held_out=["one"] * 400)
    theirs = compare(plain, [good], positive, draws, held_out=["one"] * 400)

    assert [row.better_ap for row in ours] == ["yes", "too few to tell"]
    assert [row.better_mean_ap for row in ours] == ["yes", "too few to tell"]
    assert [row.better_ap for row in theirs] == ["no"]
    assert verdict(Interval(0.5, 0.4, 0.6), enough=False) == "too few to tell"


def test_a_mean_over_sets_does_not_compare_pictures_of_different_sets() -> None:
    """
    An offset between two sets spoils what ranks them together, and not their mean; a set of one class is left out.
    """
    positive, score = scores(10, 200)
    names = np.array(["a", "b"] * 100, dtype=object)
    names[:6] = "reals only"
    positive[:6] = False
    moved = score + 50.0 * (names == "b")
    one = np.ones((1, 200), np.float32)
    wanted = np.mean([roc_auc_score(positive[names == name], score[names == name]) for name in ("a", "b")])
    found = MeanOverSets(AreaUnderRoc(), names.tolist())(one, positive, moved)

    assert pytest.approx(wanted, abs=1e-6) == float(found[0])
    assert float(AreaUnderRoc()(one, positive, moved)[0]) < wanted
