"""
That nothing is judged by what had seen it, and that ranks among reals are taken of the right ones.

Heads that remember what they were fitted on show any leak; reals drawn afresh show any rank that is wrong.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from tests.bank_builders import sha
from tests.judgement_worlds import NOISE, table_of
from worker.fitting.fit import FitPlan, FitReport, fit_judgement
from worker.fitting.heads_table import Recipe
from worker.fitting.teaching import teach_report
from worker.heads.features import FeatureTable, References, joined_references
from worker.heads.head import HeadState, Readings
from worker.heads.reference_bank import ExactBank, ReferenceBank
from worker.judgement.model import FittedJudgement

WIDTH = 8


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """
    A head that knows the generated pictures that it was fitted on, and nothing else.
    """

    name: ClassVar[str] = "memory"
    version: ClassVar[str] = "1"

    seen: NDArray[np.float32] = field(repr=False)

    def read(self, features: FeatureTable, bank: ReferenceBank) -> Readings:
        """
        1 for a picture that is among them, and else a faint number that is nobody's.
        """
        known = {row.tobytes() for row in self.seen}
        faint = 1e-3 * features.unit[:, 0].astype(np.float64)
        return Readings(np.asarray([float(row.tobytes() in known) for row in features.unit]) + faint)

    def state(self) -> HeadState:
        """
        What it remembers.
        """
        return HeadState({"seen": self.seen}, {})

    @classmethod
    def restored(cls, state: HeadState) -> Self:
        """
        The head of a state.
        """
        return cls(state.tensors["seen"].astype(np.float32))


def _memorised(references: References, _seed: int) -> Memory:
    return Memory(references.features.unit[references.positive])


MEMORY = Recipe("memory", ("global",), _memorised)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """
    A head that reads one number of a picture: the first of its shift, or where ``name`` is another its length.
    """

    name: str
    version: ClassVar[str] = "1"

    def read(self, features: FeatureTable, bank: ReferenceBank) -> Readings:
        """
        That number.
        """
        return Readings(features.shift[:, 0] if self.name == "perturbation" else features.norm)

    def state(self) -> HeadState:
        """
        Nothing but which.
        """
        return HeadState({}, {})


CHEAP_LOOK = Recipe("length", ("global",), lambda _references, _seed: Look("length"))
SECOND_LOOK = Recipe("perturbation", ("perturbation",), lambda _references, _seed: Look("perturbation"))
TWO_LOOKS = FitPlan(recipes=(CHEAP_LOOK, SECOND_LOOK))
ZONES = ((0.3, 0.7), (0.25, 0.97))
ALPHA = 0.1


def _alike(seed: int, *, each: int = 60, prefix: str = "mill", start: int = 0, reals: bool = True) -> References:
    """
    Pictures that tell nothing: every generator and source is drawn from the same cloud.
    """
    rng = np.random.default_rng(seed)
    names = [f"{prefix}-{number}" for number in range(start, start + 4)]
    places = [f"camera-{number}" for number in range(4)] if reals else []
    positive = np.repeat([True] * len(names) + [False] * len(places), each)
    n = len(positive)
    return References(
        features=table_of(rng.normal(size=(n, WIDTH)), rng),
        positive=positive,
        generator=tuple(np.repeat([*names, *places], each)[row] if positive[row] else None for row in range(n)),
        source=tuple("web" if positive[row] else str(np.repeat([*names, *places], each)[row]) for row in range(n)),
        content=tuple(sha(f"{prefix} {seed} {row}") for row in range(n)),
    )


def _seen_twice(seed: int, *, each: int) -> References:
    """
    Pictures of which length and shift each tell something of the label, independently, in files of one kind.
    """
    rng = np.random.default_rng(seed)
    known = _alike(seed, each=each)
    n, up = len(known), np.where(known.positive, 1.0, 0.0)
    features = replace(
        known.features,
        norm=rng.normal(size=n) + 1.5 * up,
        shift=np.repeat((rng.normal(size=n) + 2.0 * up)[:, np.newaxis], 3, axis=1),
        format=("JPEG",) * n,
        short_side_px=np.full(n, 800.0),
    )
    return replace(known, features=features)


@pytest.fixture(scope="module")
def looked() -> tuple[FitReport, References]:
    """
    A judgement with a cheap head and a lazy one, calibrated on pictures of their own, and its bank.
    """
    bank = _seen_twice(1, each=150)
    return fit_judgement(bank, calibration=_seen_twice(12, each=1500), plan=TWO_LOOKS), bank


def test_a_head_that_remembers_is_worth_nothing_out_of_its_fold() -> None:
    """
    Fitted on all it would be perfect; fitted on the other folds it knows none of those that it is asked of.
    """
    known = _alike(0)
    report = fit_judgement(known, plan=FitPlan(recipes=(MEMORY, NOISE)))
    remembered = report.out_of_fold.scores[:, 0]
    final = report.judgement.heads[0].read(known.features, ExactBank(known)).score

    assert 0.4 < roc_auc_score(known.positive, remembered) < 0.6
    assert 0.4 < roc_auc_score(known.positive, report.fused.full) < 0.6
    assert 1.0 == roc_auc_score(known.positive, final)


def test_new_pictures_are_not_judged_by_heads_that_had_them() -> None:
    """
    Taught pictures that tell nothing are recognised no more often than others, though the fitted head knows them all.
    """
    old, new = _alike(0), _alike(3, prefix="loom", reals=False)
    both = joined_references([old, new])
    plan = FitPlan(recipes=(MEMORY,))
    # Where it matters that a head remembers: its say is turned up.
    judgement = _trusting(fit_judgement(both, plan=plan).judgement)
    taught = teach_report(None, (judgement, both), plan=plan).taught
    looms = [one for one in taught if one.generator.startswith("loom")]
    known = judgement.assess(new.features, ExactBank(both))

    assert 4 == len(looms)
    assert all(one.log_odds > 0 for one in known)
    assert all(one.likely_after < 0.2 for one in looms)


def _trusting(judgement: FittedJudgement) -> FittedJudgement:
    """
    The judgement, whose only head is taken at its word: 1 is generated, 0 is real.
    """
    from worker.judgement.calibration import Platt  # noqa: PLC0415 - nowhere else here
    from worker.judgement.fusion import HeadScale, Stacker  # noqa: PLC0415 - nowhere else here

    return replace(
        judgement,
        scales=(HeadScale("memory", 0.0, 1.0, 1.0, 1.0, 0.0),),
        fusion=Stacker(0.0, (1.0,), (0.0,)),
        calibration=Platt(10.0, -5.0),
    )


def _flags(
    report: FitReport, bank: References, asked: References, zone: tuple[float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """
    Which pictures are flagged at ``ALPHA`` as a worker does it, and which got a second look.
    """
    # The pooled bound is exact where all sources are alike; that of each source lies below alpha, as it may.
    judgement, references = report.judgement.serving(ALPHA, None, "pooled"), ExactBank(bank)
    seen = asked.features.without_shift()
    doubtful = judgement.in_grey_zone(seen, references, *zone)
    seen.shift[doubtful] = asked.features.shift[doubtful]
    found = judgement.assess(seen, references, grey_zone=zone)
    limit = [judgement.flag_threshold(ALPHA, None, one.bucket) for one in found]
    return np.asarray([one.p_value for one in found]) <= np.asarray(limit), doubtful


@pytest.mark.parametrize("zone", ZONES)
def test_fresh_reals_are_flagged_at_alpha_whatever_the_grey_zone(
    looked: tuple[FitReport, References], zone: tuple[float, float]
) -> None:
    """
    A zone that splits them keeps their rate, neither above nor far below; and generated ones are flagged much more.
    """
    report, bank = looked
    fresh = _seen_twice(4, each=1500)
    flagged, doubtful = _flags(report, bank, fresh, zone)
    real = flagged[~fresh.positive]

    assert 0.2 < doubtful[~fresh.positive].mean() < 0.8
    # 6000 reals calibrate and 6000 are judged: the share has a deviation of 0.55 %.
    assert ALPHA == pytest.approx(real.mean(), abs=0.018)
    assert flagged[fresh.positive].mean() > 0.4


@pytest.mark.parametrize("whole", [True, False])
def test_reals_are_ranked_among_reals_that_were_looked_at_alike(
    looked: tuple[FitReport, References], *, whole: bool
) -> None:
    """
    With every head, or all without the lazy one: the share flagged is alpha either way.
    """
    report, bank = looked
    fresh = _seen_twice(5, each=1500)
    features = fresh.features if whole else fresh.features.without_shift()
    found = report.judgement.assess(features, ExactBank(bank))
    p = np.asarray([one.bucket_p for one in found], np.float64)
    each = np.asarray([one.p_value for one in found])

    assert ALPHA == pytest.approx((p[~fresh.positive] <= ALPHA).mean(), abs=0.018)
    assert (p[fresh.positive] <= ALPHA).mean() > (0.5 if whole else 0.3)
    assert 0.5 * ALPHA < (each[~fresh.positive] <= ALPHA).mean() < ALPHA + 0.018
    assert (each[fresh.positive] <= ALPHA).mean() > (0.4 if whole else 0.25)
