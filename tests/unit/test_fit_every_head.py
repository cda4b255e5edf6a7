"""
Every head that ships, fitted together on references with every view, written down and read again.
"""

import numpy as np
import pytest

from tests.head_worlds import a_world
from worker.fitting.fit import FitReport, fit_judgement
from worker.fitting.heads_table import RECIPES
from worker.heads.features import References
from worker.heads.reference_bank import ExactBank
from worker.judgement.store import HEADS, judgement_files, read_judgement

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world() -> References:
    """
    References with crops, statistics and perturbed copies.
    """
    return a_world(n=120)


@pytest.fixture(scope="module")
def fitted(world: References) -> FitReport:
    """
    Their judgement.
    """
    return fit_judgement(world)


def test_every_head_can_be_restored() -> None:
    """
    A head that can be fitted but not read again would break the bank that it is written into.
    """
    assert {recipe.name for recipe in RECIPES} <= set(HEADS)


def test_every_head_is_in(fitted: FitReport) -> None:
    """
    None is left out where everything was measured, and all views are asked of uploads.
    """
    assert [recipe.name for recipe in RECIPES] == [head.name for head in fitted.judgement.heads]
    assert ("global", "native", "realism", "perturbation") == fitted.judgement.views
    assert all(np.isfinite(row.auroc) for row in fitted.table)


def test_read_again_it_says_the_same(world: References, fitted: FitReport) -> None:
    """
    To the last bit, also where crops and perturbed copies are missing.
    """
    read = read_judgement(judgement_files(fitted.judgement))
    asked = a_world(seed=1, n=20).features
    bank = ExactBank(world)

    assert fitted.judgement.id == read.id
    assert fitted.judgement.assess(asked, bank) == read.assess(asked, bank)
    assert fitted.judgement.assess(asked.without_shift(), bank) == read.assess(asked.without_shift(), bank)
