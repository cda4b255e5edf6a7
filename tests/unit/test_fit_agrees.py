"""
That a fit agrees with the worker about what can be promised, with itself on any machine, and with JSON.
"""

from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_info  # type: ignore[import-untyped] # it has no stubs

from tests.judgement_worlds import LEAN, MUTE, NOISE, Lean, fit_lean, some_references
from worker.fitting.fit import FitPlan, fit_judgement
from worker.heads.features import References
from worker.heads.probe import LegacyProbe
from worker.heads.reference_bank import ExactBank
from worker.instruments import buckets_of
from worker.judgement.conformal import TooFewReals
from worker.policy import Rule
from worker.stages.assess import flag_thresholds


@pytest.fixture(scope="module")
def known() -> References:
    """
    Six generators and five sources of reals.
    """
    return some_references()


@pytest.mark.parametrize(("alpha", "delta"), [(0.2, None), (0.006, None), (0.002, None), (0.02, 0.1), (0.006, 0.05)])
def test_the_worker_starts_with_whatever_alpha_a_fit_allows(
    known: References, alpha: float, delta: float | None
) -> None:
    """
    Fit and worker agree: a kind of file with too few reals neither refuses what the fit allowed, nor is it refused.
    """
    small = np.where(np.arange(len(known)) % 5 < 2, 300.0, 2000.0)
    kinds = replace(known, features=replace(known.features, format=("JPEG",) * len(known), short_side_px=small))
    rule = Rule(alpha=alpha, pac_delta=delta)
    plan = FitPlan(recipes=(LEAN, NOISE), alpha=alpha, delta=delta)
    try:
        judgement = fit_judgement(kinds, plan=plan).judgement
    except TooFewReals:
        judgement = fit_judgement(kinds, plan=replace(plan, alpha=None, delta=None)).judgement
        with pytest.raises(TooFewReals):
            flag_thresholds(judgement.serving(alpha, delta), ["all"], rule)
        return
    serving = judgement.serving(alpha, delta)
    thresholds = flag_thresholds(serving, buckets_of(serving), rule)

    assert judgement.id == serving.id
    assert {one.bucket for one in serving.assess(kinds.features, ExactBank(kinds))} <= thresholds.keys()


def test_a_head_that_never_says_anything_is_left_out(known: References) -> None:
    """
    With a note; there is nothing to weigh it by, and its row would hold no numbers.
    """
    probe = LegacyProbe(weight=np.ones(8), bias=0.0, sha256="0" * 64)
    lengthless = replace(known, features=replace(known.features, norm=np.full(len(known), np.nan)))
    fitted = fit_judgement(lengthless, plan=FitPlan(recipes=(LEAN, NOISE, MUTE), ready=(probe,)))

    assert ["lean", "noise", "fused"] == [row.name for row in fitted.table]
    assert ("lean", "noise") == tuple(head.name for head in fitted.judgement.heads)
    for name in ("mute", "probe_ufd"):
        assert any(f"head {name} is left out: it says nothing" in note for note in fitted.notes)


def test_a_fit_does_not_depend_on_threads(known: References) -> None:
    """
    One thread while it lasts, and as many as before afterwards.
    """
    seen: list[int] = []

    def spying(references: References, seed: int) -> Lean:
        seen.extend(pool["num_threads"] for pool in threadpool_info())
        return fit_lean(references, seed)

    before = [pool["num_threads"] for pool in threadpool_info()]
    fit_judgement(known, plan=FitPlan(recipes=(replace(LEAN, fit=spying), NOISE)))

    assert {1} == set(seen)
    assert before == [pool["num_threads"] for pool in threadpool_info()]
