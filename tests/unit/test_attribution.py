"""
Which generator the neighbours point to, and who is named to nobody.
"""

import dataclasses
import math

import numpy as np
import pytest

from tests.judgement_worlds import some_references
from worker.fitting.open_set import fit_attribution, fit_coverage, neighbours_without_self
from worker.heads.reference_bank import ABSENT, ExactBank, Nearest, NearestOfClass
from worker.judgement.attribution import Attributor, generator_codes


def _near(similarity: list[float], rows: list[int]) -> NearestOfClass:
    return NearestOfClass(np.array([similarity], np.float32), np.array([rows], np.int64))


def test_posterior_by_its_formula() -> None:
    """
    exp(s / T) over the size of each class in the bank, normalised; the absent count nothing.
    """
    attributor = Attributor(("real", "a", "b"), np.array([0, 0, 0, 0, 1, 1, 2]), neighbours=4, temperature=0.5)
    posterior = attributor.posterior(
        Nearest(_near([0.9, 0.6, -1.0], [4, 6, ABSENT]), _near([0.8, 0.7, 0.1], [0, 1, 2]))
    )
    real, a, b = (math.exp(1.6) + math.exp(1.4)) / 4, math.exp(1.8) / 2, math.exp(1.2)

    np.testing.assert_allclose(posterior[0], np.array([real, a, b]) / (real + a + b), rtol=1e-5)


def test_named_only_when_sure_and_covered() -> None:
    """
    Below the threshold, or far from everything, the generator stays open; its probability is told.
    """
    attributor = Attributor(("real", "a", "b"), np.array([0, 1, 2]), neighbours=3, threshold=0.7)
    clear = Nearest(_near([0.9, 0.5], [1, 2]), _near([0.5], [0]))
    torn = Nearest(_near([0.9, 0.9], [1, 2]), _near([0.5], [0]))

    assert "a" == attributor.attributions(clear, np.array([0.5]))[0].generator
    assert attributor.attributions(clear, np.array([0.001]))[0].generator is None
    assert attributor.attributions(torn, np.array([0.5]))[0].generator is None
    assert 0.5 == pytest.approx(attributor.attributions(torn, np.array([0.5]))[0].probability, abs=0.01)


def test_a_bank_without_named_generators() -> None:
    """
    Nobody can be named; the unnamed have a share of their own.
    """
    known = some_references(generators=2, sources=2, each=10)
    bare = dataclasses.replace(known, generator=(None,) * len(known))
    attribution = fit_attribution(bare, neighbours_without_self(bare, ExactBank(bare), 50))
    found = attribution.attributions(ExactBank(bare).nearest("global", bare.features.unit[:3], 50), np.ones(3))

    assert ("real", "unnamed") == attribution.names
    assert [None] * 3 == [one.generator for one in found]


def test_generators_with_unlucky_names() -> None:
    """
    A generator called real is not taken for the real thing.
    """
    known = some_references(generators=2, sources=2, each=10)
    names = tuple("real" if name == "mill-0" else name for name in known.generator)
    found, code = generator_codes(dataclasses.replace(known, generator=names))

    assert ("real", "generator real", "mill-1") == found
    assert [20, 10, 10] == np.bincount(code).tolist()


def test_strangers_raise_the_threshold() -> None:
    """
    Where generators look alike a name takes more certainty than where each stands apart.
    """
    alike = some_references(seed=1, apart=0.2)
    rng = np.random.default_rng(0)
    unit = np.eye(8)[[int(name[-1]) if name else 7 for name in alike.generator]] + rng.normal(scale=0.02, size=(660, 8))
    unit = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float32)
    apart = dataclasses.replace(alike, features=dataclasses.replace(alike.features, unit=unit))
    thresholds = [
        fit_attribution(one, neighbours_without_self(one, ExactBank(one), 50)).threshold for one in (apart, alike)
    ]

    assert thresholds[0] < thresholds[1]


def test_nobody_is_their_own_neighbour() -> None:
    """
    And with the rest the order of the bank's own answer is kept.
    """
    known = some_references(generators=2, sources=2, each=30)
    bank = ExactBank(known)
    without = neighbours_without_self(known, bank, 9)
    rows = np.concatenate([without.positive.rows, without.negative.rows], axis=1)
    first_real = int(np.flatnonzero(~known.positive)[0])
    plain = bank.nearest("global", known.features.unit[[first_real]], 10)

    assert not (rows == np.arange(len(known))[:, None]).any()
    assert plain.negative.rows[0, 1:].tolist() == without.negative.rows[first_real].tolist()
    assert plain.positive.rows[0, :9].tolist() == without.positive.rows[first_real].tolist()


def test_pictures_like_the_bank_are_covered() -> None:
    """
    Of new ones of the same kind about the stated share is called far; of another kind nearly all.
    """
    known, fresh = some_references(seed=2), some_references(seed=2)
    coverage = fit_coverage(
        neighbours_without_self(known.take(range(0, 660, 2)), ExactBank(known.take(range(0, 660, 2))), 50)
    )
    from worker.judgement.conformal import kth_distance  # noqa: PLC0415 - beside its only use

    bank = ExactBank(known.take(range(0, 660, 2)))
    like = fresh.take(range(1, 660, 2)).features.unit
    far = -known.features.unit.mean(axis=0, keepdims=True)
    far /= np.linalg.norm(far)
    p = coverage.p_values(kth_distance(bank.nearest("global", like, 9), 9))
    strange = coverage.p_values(kth_distance(bank.nearest("global", far, 9), 9))

    assert 0.1 == pytest.approx((p <= 0.1).mean(), abs=0.04)
    assert strange[0] < p.mean()
