"""
Conformal p-values: what they promise, for all pictures and by kind of file, on average and for the calibration at hand.
"""

import math

import numpy as np
import pytest

from worker.errors import ConfigInvalid
from worker.heads.reference_bank import Nearest, NearestOfClass
from worker.judgement.conformal import (
    Coverage,
    TooFewReals,
    conformal_p,
    flagged_ranks,
    kth_distance,
    largest_flagged_p,
    reals_needed,
)
from worker.judgement.real_scores import MIN_BUCKET, POOLED, RealScores, bucket_of


def test_p_by_its_definition() -> None:
    """
    One more than the calibration scores that are at least as large, over one more than there are.
    """
    p = conformal_p(np.array([1.0, 2.0, 2.0, 3.0]), np.array([0.0, 2.0, 2.5, 4.0]))

    assert [1.0, 4 / 5, 2 / 5, 1 / 5] == p.tolist()


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.25])
def test_marginal_coverage_by_simulation(alpha: float) -> None:
    """
    Over many calibrations the share of reals that is flagged is alpha, and not above it but for chance.
    """
    rng = np.random.default_rng(7)
    rates = [(conformal_p(rng.normal(size=99), rng.normal(size=200)) <= alpha).mean() for _ in range(2000)]

    # 99 reals make every one of these alphas a whole number of ranks, so the bound is met with equality.
    assert alpha == pytest.approx(np.mean(rates), abs=4 * np.std(rates) / math.sqrt(len(rates)))


def test_pac_coverage_by_simulation() -> None:
    """
    At most a share delta of calibrations flags more reals than alpha, while alpha alone is exceeded by about half.
    """
    rng, n, alpha, delta = np.random.default_rng(8), 500, 0.05, 0.1
    threshold = largest_flagged_p(n, alpha, delta)
    # Uniform scores: a threshold between two of them flags exactly the share above it.
    thresholds = np.sort(rng.uniform(size=(4000, n)), axis=1)
    rank, plain = round(threshold * (n + 1)) - 1, math.floor(alpha * (n + 1)) - 1
    exceeded = (1 - thresholds[:, n - rank - 1] > alpha).mean()
    plainly = (1 - thresholds[:, n - plain - 1] > alpha).mean()

    assert exceeded <= delta + 0.015
    assert exceeded >= delta / 3
    assert 0.35 < plainly < 0.65


@pytest.mark.parametrize(("n", "r"), [(500, 1), (2000, 12), (5000, 38), (20000, 176)])
def test_pac_ranks_for_one_per_cent(n: int, r: int) -> None:
    """
    As tabulated for delta 5 %.
    """
    assert r == flagged_ranks(n, 0.01, 0.05)
    assert (r + 1) / (n + 1) == largest_flagged_p(n, 0.01, 0.05)


@pytest.mark.parametrize(("n", "r"), [(2994, None), (2995, 0), (5000, 1), (20000, 12)])
def test_pac_ranks_for_one_per_mille(n: int, r: int | None) -> None:
    """
    Nothing can be flagged before 2,995 reals.
    """
    assert r == flagged_ranks(n, 0.001, 0.05)
    assert reals_needed(0.001, 0.05) == 2995


def test_too_few_reals_says_how_many_are_needed() -> None:
    """
    With n, alpha, and the n that would do.
    """
    with pytest.raises(TooFewReals, match=r"JPEG/<512 has 50 reals, but .* 0\.01 needs at least 99") as marginal:
        largest_flagged_p(50, 0.01, None, "the calibration for JPEG/<512")
    with pytest.raises(TooFewReals, match=r"100 reals, .* 0\.01 with confidence 0\.95 needs at least 299"):
        largest_flagged_p(100, 0.01, 0.05)

    assert isinstance(marginal.value, ConfigInvalid)
    assert 0.01 == largest_flagged_p(99, 0.01, None)
    assert largest_flagged_p(299, 0.01, 0.05) == 1 / 300


@pytest.mark.parametrize(("alpha", "delta"), [(0.0, None), (1.0, None), (0.05, 0.0), (math.nan, None)])
def test_no_such_rate(alpha: float, delta: float | None) -> None:
    """
    A rate is a number between 0 and 1.
    """
    with pytest.raises(ConfigInvalid, match="expected a number above 0 and below 1"):
        largest_flagged_p(100, alpha, delta)


@pytest.mark.parametrize(
    ("image_format", "side", "bucket"),
    [
        ("JPEG", 511.0, "JPEG/<512"),
        ("JPEG", 512.0, "JPEG/512-1023"),
        ("PNG", 1024.0, "other/>=1024"),
        (None, 600.0, "unknown/512-1023"),
        ("JPEG", math.nan, "JPEG/unknown"),
    ],
)
def test_kinds_of_files(image_format: str | None, side: float, bucket: str) -> None:
    """
    By format and by the band of the short side; what is not known is a kind of its own.
    """
    assert bucket == bucket_of(image_format, side)


def _mixed(rng: np.random.Generator, n: int) -> tuple[np.ndarray, tuple[str, ...]]:
    kinds = tuple(rng.choice(["JPEG/<512", "other/>=1024"], size=n, p=[0.8, 0.2]).tolist())
    return rng.normal(size=n) + 2.0 * np.asarray([kind.startswith("other") for kind in kinds]), kinds


def test_each_kind_keeps_its_own_rate() -> None:
    """
    Reals of a kind that scores high are not flagged more often; among all reals together they would be.
    """
    rng, alpha = np.random.default_rng(9), 0.1
    own, pooled = [], []
    for _ in range(150):
        scores, kinds = _mixed(rng, 1500)
        calibrated = RealScores(scores, scores, kinds)
        asked = rng.normal(size=300) + 2.0
        ranked = calibrated.ranked(asked, ["other/>=1024"] * 300, reference=calibrated.full)
        own.append((ranked.p <= alpha).mean())
        pooled.append((conformal_p(scores, asked) <= alpha).mean())
        assert {"other/>=1024"} == set(ranked.bucket)

    assert alpha == pytest.approx(np.mean(own), abs=0.01)
    assert np.mean(pooled) > 2 * alpha


def test_a_small_kind_is_answered_by_all_reals() -> None:
    """
    And the bucket says so.
    """
    scores = np.arange(float(3 * MIN_BUCKET))
    kinds = ("JPEG/<512",) * (2 * MIN_BUCKET + 1) + ("other/<512",) * (MIN_BUCKET - 1)
    calibrated = RealScores(scores, scores, kinds)
    ranked = calibrated.ranked(np.array([1e9, 1e9]), ["JPEG/<512", "other/<512"], reference=scores)

    assert ("JPEG/<512", POOLED) == ranked.bucket
    assert [1 / (2 * MIN_BUCKET + 2), 1 / (3 * MIN_BUCKET + 1)] == ranked.bucket_p.tolist() == ranked.p.tolist()
    assert calibrated.size(POOLED) == 3 * MIN_BUCKET


@pytest.mark.parametrize(("alpha", "delta", "served"), [(0.01, None, "own"), (0.005, None, "all"), (0.02, 0.05, "all")])
def test_a_kind_that_cannot_keep_alpha_is_answered_by_all_reals(alpha: float, delta: float | None, served: str) -> None:
    """
    Then nothing is refused that all reals together support, and the bucket says whose promise it is.
    """
    kinds = ("JPEG/<512",) * 120 + ("other/<512",) * 280
    scores = np.arange(400.0)
    serving = RealScores(scores, scores, kinds).serving(alpha, delta)
    ranked = serving.ranked(np.array([1e9]), ["JPEG/<512"], reference=scores)

    assert ("JPEG/<512" if served == "own" else POOLED,) == ranked.bucket
    assert [1 / (121 if served == "own" else 401)] == ranked.p.tolist()
    assert serving.largest_flagged(alpha, delta, ranked.bucket[0]) >= ranked.p[0]


def test_coverage_is_small_far_from_everything() -> None:
    """
    The distance is to the k-th nearest of both classes together.
    """
    near = NearestOfClass(np.array([[0.9, 0.5]], np.float32), np.array([[0, 1]]))
    far = NearestOfClass(np.array([[0.8, -1.0]], np.float32), np.array([[2, -1]]))
    distance = kth_distance(Nearest(near, far), 3)
    coverage = Coverage(3, np.linspace(0.0, 0.9, 9))

    assert 0.5 == pytest.approx(distance[0])
    assert [1.0, 0.1] == coverage.p_values(np.array([-1.0, 2.0])).tolist()
