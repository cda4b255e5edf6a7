"""
The real-only head: whitening against its closed form, SciPy's Gaussian and scikit-learn's shrinkage; its components.
"""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf

from tests.head_worlds import a_world, references_of, table_of, unit32
from worker.fitting.real_only import fit_real_only, whiten
from worker.heads.features import References
from worker.heads.real_only import kth_real_distance
from worker.heads.reference_bank import ExactBank

pytestmark = pytest.mark.filterwarnings("error")


def correlated(n: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    """
    Unit vectors about a direction, whose coordinates are correlated.
    """
    rng = np.random.default_rng(seed)
    return unit32(3 + rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)))


def test_whitened_vectors_have_the_identity_as_covariance() -> None:
    """
    With ten vectors per dimension nothing is shrunk: W^T S W = I, and W W^T is the inverse of S.
    """
    unit = correlated(200, 6)
    found = whiten(unit)
    matrix = found.matrix.astype(np.float64)
    white = (unit.astype(np.float64) - found.mean) @ matrix
    sample = np.cov(unit.astype(np.float64), rowvar=False, bias=True)

    assert found.rest == 0
    np.testing.assert_allclose(np.cov(white, rowvar=False, bias=True), np.eye(6), atol=1e-5)
    np.testing.assert_allclose(matrix @ matrix.T @ sample, np.eye(6), atol=1e-3)


def test_the_likelihood_is_the_gaussians() -> None:
    """
    Of full rank it is SciPy's log-density plus half the log determinant of the covariance, which is a constant.
    """
    unit, asked = correlated(300, 5), correlated(40, 5, seed=1)
    sample = np.cov(unit.astype(np.float64), rowvar=False, bias=True)
    gaussian = multivariate_normal(unit.astype(np.float64).mean(axis=0), sample)
    expected = gaussian.logpdf(asked.astype(np.float64)) + np.linalg.slogdet(sample)[1] / 2

    np.testing.assert_allclose(expected, whiten(unit).log_likelihood(asked), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("n", "dim"), [(30, 8), (7, 12), (60, 12)])
def test_few_vectors_are_shrunk_as_ledoit_and_wolf_have_it(n: int, dim: int) -> None:
    """
    Below ten vectors per dimension, and below one: the likelihood is under scikit-learn's covariance.

    Where there are fewer vectors than dimensions, the directions that the sample does not span are all of one variance,
    so counting them together is no approximation.
    """
    unit, asked = correlated(n, dim), correlated(20, dim, seed=1)
    wide = unit.astype(np.float64)
    covariance, shrinkage = ledoit_wolf(wide)
    expected = multivariate_normal(wide.mean(axis=0), covariance).logpdf(asked.astype(np.float64))

    assert shrinkage > 0
    np.testing.assert_allclose(
        expected + np.linalg.slogdet(covariance)[1] / 2, whiten(unit).log_likelihood(asked), rtol=1e-4
    )


def test_directions_left_out_count_with_their_mean_variance() -> None:
    """
    With r of d directions kept the likelihood is that of a Gaussian whose other variances are their mean.
    """
    unit, asked = correlated(400, 8), correlated(30, 8, seed=1)
    found = whiten(unit, components=3)
    variance, directions = np.linalg.eigh(np.cov(unit.astype(np.float64), rowvar=False, bias=True))
    variance[:-3] = variance[:-3].mean()
    centred = asked.astype(np.float64) - unit.astype(np.float64).mean(axis=0)
    squared = (np.square(centred @ directions) / variance).sum(axis=1)

    assert found.matrix.shape == (8, 3)
    np.testing.assert_allclose(-(8 * np.log(2 * np.pi) + squared) / 2, found.log_likelihood(asked), rtol=1e-4)


def test_equal_vectors_have_no_spread_and_no_error() -> None:
    """
    Nothing is divided by a variance of zero.
    """
    found = whiten(unit32(np.ones((4, 3))))

    assert np.isfinite(found.log_likelihood(unit32(np.eye(3)))).all()


def test_distance_to_the_kth_real_against_a_sort() -> None:
    """
    Only reals count; with fewer than k of them, the last does.
    """
    references, asked = a_world(0, 40), a_world(1, 9).features
    reals = references.features.unit[~references.positive]
    cosines = np.sort(asked.unit.astype(np.float64) @ reals.astype(np.float64).T, axis=1)
    bank = ExactBank(references)

    np.testing.assert_allclose(1 - cosines[:, -4], kth_real_distance(asked.unit, bank, view="global", kth=4), atol=1e-6)
    np.testing.assert_allclose(
        1 - cosines[:, 0], kth_real_distance(asked.unit, bank, view="global", kth=1000), atol=1e-6
    )


def test_what_is_unlike_reals_scores_higher() -> None:
    """
    Pictures away from all reals, though never seen when fitting, and reals of the same kind apart from the fitted ones.
    """
    rng = np.random.default_rng(0)
    reals, others = 2 + rng.normal(size=(300, 6)), 2 + rng.normal(size=(40, 6)) * 0.3 + 8 * np.eye(6)[0]
    references = references_of(table_of(reals), np.zeros(300, np.bool_))
    head = fit_real_only(references.take(range(200)), seed=0)
    bank = ExactBank(references.take(range(200)))
    unseen = head.read(references.take(range(200, 300)).features, bank).score
    strange = head.read(table_of(others), bank).score

    assert (strange[:, np.newaxis] > unseen).mean() > 0.9
    assert abs(float(np.median(unseen))) < 1


def test_the_likelihood_counts_on_both_sides() -> None:
    """
    The very mean of the reals, more typical than any real is, stands out as an odd picture does.
    """
    crowd = 10 + np.random.default_rng(0).normal(size=(600, 48))
    references = references_of(table_of(crowd), np.zeros(600, np.bool_))
    head = fit_real_only(references, seed=0)
    middle = table_of(head.whitening.mean[np.newaxis].astype(np.float64))
    read = head.read(middle, ExactBank(references))

    assert read.parts["log_likelihood"][0] > head.spreads["log_likelihood"].centre
    assert read.parts["two_sided"][0] > 2


def test_reals_are_not_their_own_neighbours_when_spreads_are_fitted() -> None:
    """
    Copies of one content are left out together: the distances are those between different pictures.
    """
    once = references_of(table_of(correlated(60, 6)), np.zeros(60, np.bool_))
    thrice = References(
        features=once.features.take([row for row in range(60) for _ in range(3)]),
        positive=np.zeros(180, np.bool_),
        generator=(None,) * 180,
        source=("one",) * 180,
        content=tuple(name for name in once.content for _ in range(3)),
    )
    cosines = np.sort(once.features.unit.astype(np.float64) @ once.features.unit.astype(np.float64).T, axis=1)
    tenth = 1 - cosines[:, -11]  # the first is the picture itself
    fourth = 1 - cosines[:, -5]  # of three copies each, the tenth vector is of the fourth other picture

    assert np.median(tenth) == pytest.approx(fit_real_only(once, seed=0).spreads["kth_real_distance"].centre, abs=1e-6)
    assert np.median(fourth) == pytest.approx(
        fit_real_only(thrice, seed=0).spreads["kth_real_distance"].centre, abs=1e-6
    )


def test_crops_take_part_where_there_are_any() -> None:
    """
    A picture without crops is scored by the other two components; one with crops by all three.
    """
    references = a_world(0, 80)
    head = fit_real_only(references, seed=0)
    asked = a_world(1, 30).features
    read = head.read(asked, ExactBank(references))
    has_crops = np.isin(np.arange(30), asked.native_owner)
    columns = [
        head.spreads[name].standardised(read.parts[name])
        for name in ("two_sided", "kth_real_distance", "native_kth_real_distance")
    ]

    assert 0 < has_crops.sum() < 30
    np.testing.assert_allclose(read.score[has_crops], np.mean(columns, axis=0)[has_crops])
    np.testing.assert_allclose(read.score[~has_crops], np.mean(columns[:2], axis=0)[~has_crops])


def test_a_bank_without_reals_cannot_say() -> None:
    """
    NaN, not a likelihood alone.
    """
    world = a_world(0, 60)
    head = fit_real_only(world, seed=0)
    bank = ExactBank(references_of(world.features, np.ones(60, np.bool_)))

    assert np.isnan(head.read(world.features, bank).score).all()


def test_one_real_is_too_few() -> None:
    """
    Also when it is there twice.
    """
    world = a_world(0, 3)
    twice = References(world.features, np.array([False, False, True]), (None,) * 3, (None,) * 3, ("a", "a", "b"))

    with pytest.raises(ValueError, match="1 different real references, want 2"):
        fit_real_only(twice, seed=0)
