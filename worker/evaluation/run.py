"""
One evaluation from pictures to numbers: embed, split, fit, judge, measure, perturb, teach.

What encoder, fit and policy are used is handed in; what is shown of the result is made elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.judgement import Guarantee
from worker.bank.survey import Progress, no_progress
from worker.errors import BankInvalid
from worker.evaluation.as_it_is import BankAsItIs, by_bank
from worker.evaluation.comparison import compare
from worker.evaluation.control import ORIGINAL, REENCODED, control_scores, original_columns, reencoded_columns
from worker.evaluation.dataset import Dataset
from worker.evaluation.drawing import bootstrap
from worker.evaluation.duplicates import DuplicateCheck, without_near_duplicates
from worker.evaluation.embedding import (
    Embedder,
    OpenEmbedder,
    embedded,
    evaluation_views,
    without_perturbation,
)
from worker.evaluation.evaluation import Evaluation, FoldRow, Judged, Shown
from worker.evaluation.false_positives import flagged_reals
from worker.evaluation.measures import Measures, ScoreColumn, logistic, measure
from worker.evaluation.pictures import on_one_footing
from worker.evaluation.resampling import (
    AreaUnderRoc,
    AveragePrecision,
    BalancedAccuracy,
    Bootstrap,
    Statistic,
)
from worker.evaluation.robustness import Sweep, SweepRow, subset
from worker.evaluation.scores import FUSED, Fit, JudgedFold, judge_folds, pooled
from worker.evaluation.shipped import outcomes_of, shipped_of
from worker.evaluation.splits import Fold, Split, SplitName, by_generator, by_source_or_generator
from worker.evaluation.teaching import Pupils, Teaching, teach
from worker.heads.features import Mask, References

SHOWN_PER_KIND = 3
NEIGHBOURS_SHOWN = 3


class Peer(Protocol):
    """
    Another detector: a name, and a score per picture that says "generated" above 0.
    """

    @property
    def name(self) -> str:
        """
        As it stands in the table.
        """

    def logits(self, pictures: Sequence[Image.Image]) -> NDArray[np.float64]:
        """
        One score per picture.
        """


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """
    What to measure, and on which footing all pictures are put before.

    ``reencode_quality`` and ``max_side_px`` None: the files as they are. ``originals``: measure them beside.

    ``taught`` names the generators of the teaching curve; () takes those with most pictures.
    """

    split: SplitName = "source"
    heldout_tier: str | None = None
    crops: int = 2
    max_side_px: int | None = 1024
    reencode_quality: int | None = 90
    originals: bool = True
    robustness: bool = True
    robustness_limit: int = 200
    teaching: bool = True
    taught: tuple[str, ...] = ()
    draws: int = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Tools:
    """
    What an evaluation works with: how to open the encoder for given views, how to fit, the bound to check, a folder.

    With ``bank`` nothing is fitted: it is measured as it is, and the plan must have its views.

    ``guarantee`` says whether the bound ``alpha`` is to hold in each source of reals, or over all together.
    """

    open_embedder: OpenEmbedder
    fit: Fit
    alpha: float
    work: Path
    guarantee: Guarantee = "each_source"
    peers: tuple[Peer, ...] = ()
    bank: BankAsItIs | None = None
    progress: Progress = field(default=no_progress, repr=False)


def evaluate(listed: Dataset, plan: EvaluationPlan, tools: Tools) -> Evaluation:
    """
    Everything that the plan asks for.

    Blocks for minutes. Raises ``ConfigInvalid`` where the split cannot be cut, ``BankInvalid`` where nothing can be
    embedded.
    """
    views = evaluation_views(plan.crops, plan.max_side_px, plan.reencode_quality)
    embedder = Embedder(tools.open_embedder(views), tools.work, tools.progress)
    dataset, references = embedded(listed, embedder, "re-encoded" if plan.reencode_quality else "originals")
    split, duplicates = _cut(dataset, references, plan, tools.bank)
    folds = judge_folds(references, split.folds, tools.bank or tools.fit, tools.progress)
    judged = _judged(dataset, references, folds, _others(dataset, split.folds, plan, tools))
    draws = bootstrap(judged.positive, plan.draws, plan.seed, judged.clusters)
    columns = judged.columns
    return Evaluation(
        dataset=dataset,
        encoder=embedder.embedder.encoder.fingerprint.model,
        views=views,
        split=split,
        folds=tuple(_fold_row(one, dataset.positive) for one in folds),
        judged=judged,
        measures=_measures(judged, draws),
        comparisons=compare(columns[FUSED], _rivals(columns), judged.positive, draws, held_out=judged.held_out),
        fpr=flagged_reals(judged.scores, judged.positive, judged.clusters, draws, asked=(tools.alpha, tools.guarantee)),
        outcomes=outcomes_of(judged.scores, judged.positive),
        shipped=shipped_of(judged.scores, judged.positive, draws),
        duplicates=duplicates,
        originals=_originals(dataset, split.folds, plan, tools) if plan.originals and plan.reencode_quality else {},
        sweep=_sweep(dataset, references, folds, plan, tools) if plan.robustness else (),
        teaching=_teaching(dataset, references, plan, tools),
        shown=_best_and_worst(dataset, references, folds),
    )


def _cut(
    dataset: Dataset, references: References, plan: EvaluationPlan, bank: BankAsItIs | None
) -> tuple[Split, DuplicateCheck]:
    samples = dataset.samples
    if bank is not None:
        return by_bank(samples, bank.contents, plan.heldout_tier), DuplicateCheck(0, ())
    if plan.split == "source":
        split = by_source_or_generator(samples, plan.heldout_tier, plan.seed)
    else:
        split = by_generator(samples, plan.seed)
    folds, check = without_near_duplicates(split.folds, samples, references.features.unit)
    return Split(split.name, folds, split.notes), check


def _others(dataset: Dataset, folds: Sequence[Fold], plan: EvaluationPlan, tools: Tools) -> dict[str, ScoreColumn]:
    """
    The controls and the peers, over all samples; NaN for those that no fold judges.
    """
    positive = dataset.positive
    held_out = np.concatenate([fold.test for fold in folds])
    found = {}
    if tools.bank is None:  # a control learns from what a fold trains on
        found[ORIGINAL] = control_scores(original_columns(dataset.samples), positive, folds, plan.seed)
    if tools.bank is None and plan.reencode_quality:
        columns = reencoded_columns(dataset.samples, plan.max_side_px)
        found[REENCODED] = control_scores(columns, positive, folds, plan.seed)
    for peer in tools.peers:
        scores = np.full(len(dataset), np.nan)
        for done, row in enumerate(held_out):
            tools.progress(peer.name, done, len(held_out))
            path = dataset.samples[row].reference.path
            picture = on_one_footing(path, plan.max_side_px, plan.reencode_quality)
            if picture is not None:
                scores[row] = peer.logits([picture])[0]
        tools.progress(peer.name, len(held_out), len(held_out))
        found[peer.name] = scores
    return {name: ScoreColumn(name, column) for name, column in found.items()}


def _judged(
    dataset: Dataset, references: References, folds: Sequence[JudgedFold], others: Mapping[str, ScoreColumn]
) -> Judged:
    rows, scores = pooled(folds)
    columns = {name: scores.column(name) for name in scores.columns}
    columns |= {name: ScoreColumn(name, column.score[rows], column.probability) for name, column in others.items()}
    return Judged(
        rows=rows,
        positive=dataset.positive[rows],
        # Of a picture whose generator is not named, the source is the next best name.
        generator=tuple(_made_by(dataset, row) for row in rows.tolist()),
        clusters=tuple(_cluster(dataset, row) for row in rows.tolist()),
        held_out=tuple(one.fold.name for one in folds for _ in one.fold.test),
        unit=references.features.unit[rows],
        columns=columns,
        scores=scores,
    )


def _made_by(dataset: Dataset, row: int) -> str:
    sample = dataset.samples[row]
    return sample.reference.generator or f"unnamed of {sample.source}"


def _cluster(dataset: Dataset, row: int) -> str:
    """
    What stands for a source in the bootstrap: of a generated picture without one, its generator.
    """
    sample = dataset.samples[row]
    return sample.reference.source or (f"generator {sample.generator}" if sample.positive else sample.source)


def _measures(judged: Judged, draws: Bootstrap) -> dict[str, Measures]:
    return {
        name: measure(column, judged.positive, judged.generator, draws, held_out=judged.held_out)
        for name, column in judged.columns.items()
    }


def _rivals(columns: Mapping[str, ScoreColumn]) -> list[ScoreColumn]:
    return [column for name, column in columns.items() if name != FUSED]


def _fold_row(one: JudgedFold, positive: Mask) -> FoldRow:
    labels, fused = positive[one.fold.test], one.scores.column(FUSED).filled
    return FoldRow(
        name=one.fold.name,
        trained=len(one.fold.train),
        n_real=int((~labels).sum()),
        n_ai=int(labels.sum()),
        ap=_single(AveragePrecision(), labels, fused),
        auroc=_single(AreaUnderRoc(), labels, fused),
        balanced_accuracy=_single(BalancedAccuracy(), labels, fused),
    )


def _single(statistic: Statistic, positive: Mask, score: NDArray[np.float64]) -> float | None:
    value = float(statistic(np.ones((1, len(score)), np.float32), positive, score)[0])
    return value if np.isfinite(value) else None


def _originals(dataset: Dataset, folds: Sequence[Fold], plan: EvaluationPlan, tools: Tools) -> dict[str, Measures]:
    """
    Fused score, heads and plain rules on the files as they were collected, on the very same folds.
    """
    embedder = Embedder(tools.open_embedder(evaluation_views(plan.crops, None, None)), tools.work, tools.progress)
    usable, references = embedded(dataset, embedder, "originals")
    if len(usable) != len(dataset):
        raise BankInvalid(
            f"{dataset.name}: {len(dataset) - len(usable)} pictures can be embedded re-encoded and not as they are; "
            "give --no-originals"
        )
    judged = _judged(usable, references, judge_folds(references, folds, tools.fit, tools.progress), {})
    return _measures(judged, bootstrap(judged.positive, plan.draws, plan.seed, judged.clusters))


def _sweep(
    dataset: Dataset, references: References, folds: Sequence[JudgedFold], plan: EvaluationPlan, tools: Tools
) -> tuple[SweepRow, ...]:
    views = without_perturbation(evaluation_views(plan.crops, plan.max_side_px, plan.reencode_quality))
    sweep = Sweep(
        dataset=dataset,
        judged=folds,
        rows=subset(folds, dataset.positive, plan.robustness_limit, plan.seed),
        embed=Embedder(tools.open_embedder(views), tools.work),
        folder=tools.work / "perturbed",
        seed=plan.seed,
    )
    return sweep.run(references, tools.progress)


def _teaching(dataset: Dataset, references: References, plan: EvaluationPlan, tools: Tools) -> Teaching:
    if tools.bank is not None:
        return Teaching(notes=("a bank that is measured as it is is taught nothing",))
    if not plan.teaching:
        return Teaching(notes=("not asked for (--no-teaching)",))
    pupils = Pupils(plan.taught, plan.seed)
    return teach(references, dataset.samples, tools.fit, pupils=pupils, progress=tools.progress)


def _best_and_worst(dataset: Dataset, references: References, folds: Sequence[JudgedFold]) -> tuple[Shown, ...]:
    """
    Of either label the most and the least confident held-out pictures, each with its nearest training references.
    """
    where = [(one, at) for one in folds for at in range(len(one.fold.test))]
    fused = np.array([one.scores.columns[FUSED][at] for one, at in where])
    labels = np.array([dataset.samples[one.fold.test[at]].positive for one, at in where])
    chosen: list[int] = []
    for label in (True, False):
        members = np.flatnonzero(labels == label)
        ranked = members[np.argsort(fused[members], kind="stable")].tolist()
        chosen += list(dict.fromkeys([*ranked[:SHOWN_PER_KIND], *ranked[::-1][:SHOWN_PER_KIND]]))
    return tuple(_shown(dataset, references, *where[at]) for at in chosen)


def _shown(dataset: Dataset, references: References, one: JudgedFold, at: int) -> Shown:
    row = int(one.fold.test[at])
    unit = references.features.unit
    cosines = unit[one.fold.train] @ unit[row]
    nearest = np.argsort(-cosines, kind="stable")[:NEIGHBOURS_SHOWN]
    sample = dataset.samples[row]
    return Shown(
        path=sample.reference.path,
        name=sample.reference.name,
        positive=sample.positive,
        probability=float(logistic(one.scores.columns[FUSED][[at]])[0]),
        neighbours=tuple(
            (other.reference.path, other.reference.name, other.positive, float(cosine))
            for other, cosine in (
                (dataset.samples[int(one.fold.train[near])], cosines[near]) for near in nearest.tolist()
            )
        ),
    )
