"""
From labelled references to a fitted judgement, and to a table of how good each of its parts is on unseen generators.

Pictures are not touched here: features come in, a value comes out. Banks and files are ``worker.fitting.bank_fit``.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from worker.errors import ConfigInvalid
from worker.fitting.calibrate import fit_calibration
from worker.fitting.folds import MIN_PER_LABEL, Folds, folds_of, group_weights
from worker.fitting.head_rows import Row, rows_of
from worker.fitting.heads_table import RECIPES, Recipe, measured_views, usable_recipes
from worker.fitting.labelled import Labelled, paired_sources
from worker.fitting.one_thread import one_thread
from worker.fitting.open_set import COVERAGE_K, fit_attribution, fit_coverage, neighbours_without_self
from worker.fitting.out_of_fold import (
    FusedScores,
    OutOfFold,
    Progress,
    fitted_fusion,
    fused_scores,
    out_of_fold,
    says_something,
    scores_of,
    silent_note,
)
from worker.fitting.stack import MIN_GROUPS, MIN_LABELLED, enough_to_stack
from worker.heads.features import Column, References
from worker.heads.head import Head
from worker.heads.reference_bank import ExactBank
from worker.judgement.attribution import NEIGHBOURS, Attributor
from worker.judgement.calibration import Calibration
from worker.judgement.conformal import Coverage, kth_distance, largest_flagged_p
from worker.judgement.fusion import Fusion, HeadScale
from worker.judgement.model import VERSION, FittedJudgement, HowFitted
from worker.judgement.real_scores import RealScores, bucket_of
from worker.judgement.sources import new_sources_note, promise, too_small_note
from worker.judgement.store import identified


def silent(what: str, done: int, total: int) -> None:
    """
    Progress that nobody watches.
    """


@dataclass(frozen=True, slots=True)
class FitPlan:
    """
    What to fit, and what must be possible afterwards.

    ``heads`` names those to include, None all that the views allow. ``alpha`` and ``delta``: the false-positive rate
    that the calibration must support, else the fit is refused before it begins; None asks for none. ``ready`` are heads
    that come fitted, such as the published probe; what they had learnt from is not held out of the folds.
    """

    seed: int = 0
    heads: tuple[str, ...] | None = None
    alpha: float | None = None
    delta: float | None = None
    ready: tuple[Head, ...] = ()
    recipes: tuple[Recipe, ...] = field(default=RECIPES, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class FitReport:
    """
    The judgement, and what it was learnt from.

    ``table``: one row per head, then ``fused``. ``scores`` and ``fused`` are those of the references out of their fold,
    ``log_odds`` float64[n] the calibrated ones. ``notes``: what was left out or divided, for people.
    """

    judgement: FittedJudgement
    table: tuple[Row, ...]
    out_of_fold: OutOfFold
    fused: FusedScores
    log_odds: Column = field(repr=False)
    folds: Folds
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Calibrated:
    """
    What the calibration's pictures gave.
    """

    curve: Calibration
    reals: RealScores
    on: Literal["separate", "out_of_fold"]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Weighed:
    """
    Fitted heads and how they are fused, with the scores out of fold that this was learnt from.
    """

    heads: tuple[Head, ...]
    found: OutOfFold
    scales: tuple[HeadScale, ...]
    fusion: Fusion
    fused: FusedScores


OUT_OF_FOLD_NOTE: Final = (
    "calibrated on the bank's own references, each judged by heads of other folds: the false-positive guarantee is "
    "approximate; give --calibration a folder of other pictures for one that is closer to exact"
)

FUSED_NOTE: Final = (
    "what the heads weigh and their scales were learnt from the very scores of this table, so its fused row is "
    "somewhat better than on pictures that are new; `touchstone evaluate` holds those out too"
)


def fit_judgement(
    references: References,
    *,
    calibration: References | None = None,
    plan: FitPlan | None = None,
    progress: Progress = silent,
) -> FitReport:
    """
    Fit every head, what each weighs, and what the sum means; the same for the same references, plan and machine.

    ``calibration`` are labelled pictures of the same space that are not in the bank: they alone then decide what a
    score means, and p-values hold for pictures that are exchangeable with them (see ``FittedJudgement`` for what makes
    this less than exact). Without them out-of-fold scores do.
    Linear algebra runs on one thread meanwhile: sums split over threads end in other bits, and so in another id.
    Raises ``TooFewReals`` when ``plan.alpha`` cannot be supported, and ``ConfigInvalid`` when there is too little to
    fit from.
    """
    plan = plan or FitPlan()
    calibration, notes = _unseen(calibration, references)
    _check_alpha(references if calibration is None else calibration, plan)
    with one_thread():
        return _fitted(references, calibration, notes, plan=plan, progress=progress)


def _fitted(
    references: References,
    calibration: References | None,
    notes: tuple[str, ...],
    *,
    plan: FitPlan,
    progress: Progress,
) -> FitReport:
    folds = folds_of(references)
    recipes, left_out = usable_recipes(references, plan.heads, plan.recipes)
    labelled = Labelled(references.positive, group_weights(references), paired_sources(references))
    weighed = _weighed(references, folds, recipes, labelled, plan=plan, progress=progress)
    found, fused = weighed.found, weighed.fused
    bank = ExactBank(references)
    calibrated = _out_of_fold_calibration(references, fused, labelled)
    own_curve = calibrated.curve
    if calibration is not None:
        scores = scores_of(weighed.heads, calibration.features, bank)
        calibrated = _separate_calibration(calibration, fused_scores(scores, weighed.scales, weighed.fusion), own_curve)
    coverage, attribution = _open_set(references, calibration, bank)
    judgement = identified(
        FittedJudgement(
            id="",
            version=VERSION,
            heads=weighed.heads,
            scales=weighed.scales,
            fusion=weighed.fusion,
            calibration=calibrated.curve,
            reals=calibrated.reals,
            coverage=coverage,
            attribution=attribution,
            base_rate=0.5,  # group_weights give both labels half
            views=_views(found.names, plan, references),
            calibrated_on=calibrated.on,
            asked=HowFitted(plan.heads, plan.seed, plan.alpha, plan.delta),
        )
    )
    log_odds = own_curve.log_odds(fused.full)
    return FitReport(
        judgement=judgement,
        table=rows_of(found, weighed.scales, weighed.fusion, references.positive, log_odds),
        out_of_fold=found,
        fused=fused,
        log_odds=log_odds,
        folds=folds,
        notes=(
            *notes,
            *left_out,
            *found.dropped,
            *_stack_note(references),
            *folds.notes,
            FUSED_NOTE,
            *calibrated.notes,
            *_source_notes(calibrated.reals, plan),
        ),
    )


def _weighed(
    references: References,
    folds: Folds,
    recipes: tuple[Recipe, ...],
    labelled: Labelled,
    *,
    plan: FitPlan,
    progress: Progress,
) -> _Weighed:
    found = out_of_fold(references, folds, recipes, seed=plan.seed, progress=progress)
    heads = _final_heads(references, found, plan, progress)
    found, ready = _with_ready(found, plan, references)
    heads = (*heads, *ready)
    if not heads:
        raise ConfigInvalid(f"no head can be fitted: {'; '.join(found.dropped)}")
    stacked = enough_to_stack(references)
    scales, fusion = fitted_fusion(found.names, found.scores, labelled, stacked=stacked)
    return _Weighed(heads, found, scales, fusion, fused_scores(found.scores, scales, fusion))


def _unseen(calibration: References | None, references: References) -> tuple[References | None, tuple[str, ...]]:
    """
    The calibration without what the bank holds already: a reference would be its own neighbour.
    """
    if calibration is None:
        return None, ()
    held = set(references.content)
    rows = [row for row, content in enumerate(calibration.content) if content not in held]
    if len(rows) == len(calibration):
        return calibration, ()
    known = len(calibration) - len(rows)
    return calibration.take(rows), (f"{known} calibration pictures are in the bank too and were left out",)


def _check_alpha(asked: References, plan: FitPlan) -> None:
    reals = int((~asked.positive).sum())
    if plan.alpha is not None:
        largest_flagged_p(reals, plan.alpha, plan.delta)
    if reals == 0:
        raise ConfigInvalid("the calibration holds no real pictures that the bank does not; nothing can be promised")


def _final_heads(references: References, found: OutOfFold, plan: FitPlan, progress: Progress) -> tuple[Head, ...]:
    fit = {recipe.name: recipe.fit for recipe in plan.recipes}
    heads = []
    for done, name in enumerate(found.names):
        progress("fitting heads on all references", done, len(found.names))
        heads.append(fit[name](references, plan.seed))
    progress("fitting heads on all references", len(found.names), len(found.names))
    return tuple(heads)


def _with_ready(found: OutOfFold, plan: FitPlan, references: References) -> tuple[OutOfFold, tuple[Head, ...]]:
    """
    The scores with those of heads that come fitted, and which of these have something to say.
    """
    if not plan.ready:
        return found, ()
    scores = scores_of(plan.ready, references.features, ExactBank(references))
    kept = [column for column in range(len(plan.ready)) if says_something(scores[:, column], references.positive)]
    ready = tuple(plan.ready[column] for column in kept)
    silent = tuple(silent_note(head.name) for head in plan.ready if head not in ready)
    told = tuple(f"head {head.name} came fitted: what it had learnt from is not held out of its row" for head in ready)
    names = (*found.names, *(head.name for head in ready))
    every = np.concatenate([found.scores, scores[:, kept]], axis=1)
    return OutOfFold(names, every, (*found.dropped, *silent, *told)), ready


def _out_of_fold_calibration(references: References, fused: FusedScores, labelled: Labelled) -> _Calibrated:
    curve = _curve(fused, labelled)
    return _Calibrated(curve, _real_scores(references, fused), "out_of_fold", (OUT_OF_FOLD_NOTE,))


def _separate_calibration(calibration: References, fused: FusedScores, own: Calibration) -> _Calibrated:
    reals = _real_scores(calibration, fused)
    held = int(calibration.positive.sum())
    if min(held, len(calibration) - held) < MIN_PER_LABEL:
        note = (
            f"the calibration has {held} generated and {len(calibration) - held} real pictures, fewer than "
            f"{MIN_PER_LABEL} of one label: it gives the p-values, and the bank's own references the probability"
        )
        return _Calibrated(own, reals, "separate", (note,))
    labelled = Labelled(calibration.positive, group_weights(calibration))
    return _Calibrated(_curve(fused, labelled), reals, "separate")


def _curve(fused: FusedScores, labelled: Labelled) -> Calibration:
    """
    One curve for scores with and without the lazy heads: both are seen where they differ.
    """
    if np.array_equal(fused.full, fused.cheap):
        return fit_calibration(fused.full, labelled.positive, labelled.weights)
    both = np.concatenate([fused.full, fused.cheap])
    return fit_calibration(both, np.tile(labelled.positive, 2), np.tile(labelled.weights / 2, 2))


def _real_scores(references: References, fused: FusedScores) -> RealScores:
    reals = np.flatnonzero(~references.positive)
    features = references.features
    kinds = tuple(bucket_of(features.format[row], float(features.short_side_px[row])) for row in reals)
    sources = tuple(references.source[row] for row in reals)
    return RealScores(fused.full[reals], fused.cheap[reals], kinds, sources)


def _source_notes(reals: RealScores, plan: FitPlan) -> tuple[str, ...]:
    """
    What a policy that asks for ``each_source`` promises of this calibration, and what it does not.
    """
    serving = reals if plan.alpha is None else reals.serving(plan.alpha, plan.delta)
    few = too_small_note(reals.source, serving.least_of_source)
    return (
        promise(plan.alpha, serving.sources),
        *(() if few is None else (few,)),
        new_sources_note(plan.alpha, reals.source),
    )


def _open_set(references: References, calibration: References | None, bank: ExactBank) -> tuple[Coverage, Attributor]:
    nearest = neighbours_without_self(references, bank, NEIGHBOURS)
    attribution = fit_attribution(references, nearest)
    if calibration is None:
        return fit_coverage(nearest), attribution
    found = bank.nearest("global", calibration.features.unit, COVERAGE_K)
    return Coverage(COVERAGE_K, np.sort(kth_distance(found, COVERAGE_K))), attribution


def _views(names: tuple[str, ...], plan: FitPlan, references: References) -> tuple[str, ...]:
    """
    What must be measured of uploads. Crops wherever the bank has them: heads use them that can also do without.
    """
    needed = {view for recipe in plan.recipes if recipe.name in names for view in recipe.needs} | {"global"}
    needed |= measured_views(references) & {"native"}
    return tuple(view for view in ("global", "native", "realism", "perturbation") if view in needed)


def _stack_note(references: References) -> tuple[str, ...]:
    if enough_to_stack(references):
        return ()
    few = f"fewer than {MIN_LABELLED} references or than {MIN_GROUPS} generators and sources"
    return (f"{few}: heads are averaged, not weighed",)
