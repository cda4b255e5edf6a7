"""
The evaluation in a terminal: what was held out, one row per column of scores, and what a reader must know beside it.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.evaluation.comparison import Comparison
from worker.evaluation.evaluation import Evaluation
from worker.evaluation.false_positives import promised
from worker.evaluation.measures import FALSE_POSITIVE_RATES, FalsePositiveRate, Measures
from worker.evaluation.resampling import Interval
from worker.evaluation.scores import FUSED
from worker.evaluation.teaching import Teaching
from worker.evaluation.ufd import KS, PUBLISHED_MEAN, UfdTable

_NAMED = 5

INTERVALS_NOTE: Final = (
    "(a-b): other pictures drawn, for these sources; [a-b]: other sources drawn, then pictures of each, where there is "
    'more than one. "fused better?" says yes or no only where both intervals of the difference lie on one side, and '
    "its rows are not corrected for being many. AP and AUROC rank all held-out pictures together; their means over the "
    "held-out sets rank those of each set among themselves, as papers average over test sets. Few sources make "
    "[a-b] too narrow rather than too wide."
)


FALSE_POSITIVE_COLUMNS: Final = ("source", "reals", "flagged", "share", "95 % interval", "bound over all sources")


HELD_OUT: Final[Mapping[str, str]] = {
    "source": "one source held out at a time",
    "generator": "one generator held out at a time",
    "bank": "judged by the bank as it is",
}

MEAN_AP: Final = "mean AP of the held-out"
MEAN_AUROC: Final = "mean AUROC of the held-out"


def show_evaluation(found: Evaluation, console: Console) -> None:
    """
    Print everything but the plots.
    """
    for line in heading(found):
        console.print(escape(line), soft_wrap=True)
    console.print(score_table(found))
    console.print(escape(INTERVALS_NOTE), soft_wrap=True)
    console.print(rate_table(found))
    if found.fpr.per_source:
        console.print(false_positive_table(found))
    console.print(fold_table(found))
    if found.sweep:
        console.print(sweep_table(found))
    for line in (*teaching_lines(found.teaching), *shipped_lines(found), *closing(found)):
        console.print(escape(line), soft_wrap=True)


def heading(found: Evaluation) -> Iterator[str]:
    """
    What was measured on what, in sentences.
    """
    views = found.views
    footing = (
        f"all re-encoded alike (at most {views.max_side_px} px, JPEG {views.reencode_quality})"
        if views.reencode_quality
        else "as the files are: formats and sizes may give the answer away"
    )
    yield (
        f"{found.dataset.name}: {len(found.dataset)} pictures, {footing}; encoder {found.encoder}; "
        f"{HELD_OUT[found.split.name]}, {len(found.folds)} {'sources' if found.split.name == 'bank' else 'folds'}, "
        f"{found.n_real} real and {found.n_ai} generated pictures judged"
    )
    yield from found.split.notes


def closing(found: Evaluation) -> Iterator[str]:
    """
    Guarantee, abstaining, duplicates and what was left out, in sentences.
    """
    fpr, outcomes, pairs = found.fpr, found.outcomes, found.duplicates
    if fpr.value is None:
        yield f"false positives: not measured at a bound of {fpr.alpha:.1%}, nor is what ships: {fpr.reason}"
    else:
        yield (
            f"false positives: {fpr.flagged} of {fpr.n} held-out reals flagged, {fpr.value:.1%} "
            f"({fpr.low or 0:.1%} to {fpr.high or 0:.1%}{_over_sources(fpr)}), at a stated bound of {fpr.alpha:.1%}"
        )
        if fpr.pooled_value is not None:
            yield (
                f"with the bound over all sources together instead: {fpr.pooled_value:.1%} "
                f"({fpr.pooled_low or 0:.1%} to {fpr.pooled_high or 0:.1%})"
            )
        yield f"promised in every fold: {promised(fpr)}"
    if outcomes.reason is None:
        yield (
            f"under the policy {outcomes.generated} are called generated, {outcomes.real} real, {outcomes.uncertain} "
            f"uncertain ({_percent(outcomes.abstain_rate)}); of those decided {_percent(outcomes.accuracy_decided)} "
            "are right"
        )
    yield (
        f"across the split {len(pairs.confirmed)} near-duplicates were taken out of training ({pairs.suspects} pairs "
        f"looked at); {len(found.dataset.duplicates)} files repeat another's bytes and were left out"
    )
    for pair in pairs.confirmed[:_NAMED]:
        yield f"  {pair.judged} is nearly {pair.trained} (cosine {pair.cosine:.3f}, {pair.pdq_bits} bits of 256)"
    if found.dataset.skipped:
        first = found.dataset.skipped[0]
        yield f"{len(found.dataset.skipped)} files could not be used, first {first.name}: {first.code} {first.detail}"


def shipped_lines(found: Evaluation) -> Iterator[str]:
    """
    What ships: the three-way outcome under the policy, in a sentence; nothing where it was not measured.
    """
    ships = found.shipped
    if ships.reason is None:
        yield (
            f"as shipped (the policy's thresholds, margin and coverage; undecided counts half): balanced accuracy "
            f"{interval(ships.balanced_accuracy)}, real {interval(ships.real_accuracy)}, "
            f"fake {interval(ships.fake_accuracy)}; {interval(ships.decided_share)} decided, of these "
            f"{interval(ships.accuracy_of_decided)} right; TPR at alpha {found.fpr.alpha:g} "
            f"{interval(ships.tpr_at_alpha)}"
        )


def teaching_lines(found: Teaching) -> Iterator[str]:
    """
    A line per taught generator, and why others were not taught.
    """
    for curve in found.curves:
        steps = ", ".join(
            f"{step.taught}: too few pictures"
            if step.recall is None
            else f"{step.taught}: {_percent(step.recall)} (reals {_percent(step.real_accuracy)})"
            for step in curve.steps
        )
        yield f"taught {curve.generator}, recall on {curve.judged} others after so many pictures: {steps}"
    for note in found.notes:
        yield f"teaching: {note}"


def rate_table(found: Evaluation) -> Table:
    """
    The share of generated pictures told at fixed false-positive rates, read off on the held-out reals themselves.
    """
    table = Table(title=f"share told at a false-positive rate (of {found.n_real} held-out reals)")
    table.add_column("")
    for rate in FALSE_POSITIVE_RATES:
        table.add_column(f"TPR at FPR {100 * rate:g} %", justify="right")
    for name, one in found.measures.items():
        cells = ("too few reals" if value is None else _number(value) for value in one.tpr_at.values())
        table.add_row(escape(name), *cells)
    return table


def false_positive_table(found: Evaluation) -> Table:
    """
    Flagged held-out reals of every source, under the policy's guarantee and under the pooled one.
    """
    table = Table(title=f"held-out reals flagged, at a stated bound of {found.fpr.alpha:.1%}")
    for name in FALSE_POSITIVE_COLUMNS:
        table.add_column(name, justify="left" if name == "source" else "right")
    for name, *cells in false_positive_rows(found):
        table.add_row(escape(name), *cells)
    return table


def false_positive_rows(found: Evaluation) -> list[list[str]]:
    """
    The rows of that table, by source.
    """
    return [
        [
            name,
            str(row.n),
            str(row.flagged),
            f"{row.value:.1%}",
            f"{row.low:.1%} to {row.high:.1%}",
            "-" if row.pooled_value is None else f"{row.pooled_value:.1%}",
        ]
        for name, row in found.fpr.per_source.items()
    ]


def score_table(found: Evaluation) -> Table:
    """
    One row per column of scores, the fused one first.
    """
    table = Table(title=f"{HELD_OUT[found.split.name]}; 95 % bootstrap intervals (pictures drawn, for these sources)")
    scores = ("AP", "AUROC", MEAN_AP, MEAN_AUROC, "balanced acc. at even odds")
    for name in ("", *scores, "real", "fake", "ECE", "Brier", "worst generator"):
        table.add_column(name, justify="left" if name in ("", "worst generator") else "right")
    before = ("AP, files as they were",) if found.originals else ()
    for name in (*before, "fused better? AP", "fused better? mean AP", "fused better? acc."):
        table.add_column(name, justify="right")
    compared = {row.name: row for row in found.comparisons}
    for name, one in found.measures.items():
        table.add_row(escape(name), *score_cells(found, name, one), *_better(name, compared))
    return table


def score_cells(found: Evaluation, name: str, one: Measures) -> list[str]:
    """
    The cells of one column of scores, in the order of the table.
    """
    worst = "-" if one.worst is None else f"{escape(one.worst.name)} {one.worst.recall:.0%}"
    before = found.originals.get(name)
    return [
        interval(one.ap),
        interval(one.auroc),
        interval(one.mean_ap),
        interval(one.mean_auroc),
        interval(one.balanced_accuracy),
        _percent(one.real_accuracy.value),
        _percent(one.fake_accuracy.value),
        _number(one.ece),
        _number(one.brier),
        worst,
        *(() if not found.originals else ("-" if before is None else interval(before.ap),)),
    ]


def fold_table(found: Evaluation) -> Table:
    """
    The fused score in every fold.
    """
    table = Table(title=f"{FUSED}, fold by fold")
    for name in ("held out", "trained on", "real", "generated", "AP", "AUROC", "balanced acc. at even odds"):
        table.add_column(name, justify="left" if name == "held out" else "right")
    for row in found.folds:
        numbers = [str(row.trained), str(row.n_real), str(row.n_ai)]
        table.add_row(escape(row.name), *numbers, _number(row.ap), _number(row.auroc), _number(row.balanced_accuracy))
    return table


def sweep_table(found: Evaluation) -> Table:
    """
    The fused score under every perturbation, at the clean threshold.
    """
    table = Table(title=f"{FUSED} after perturbation, at the clean threshold, without perturbed copies")
    for name in ("perturbation", "real", "generated", "TPR", "FPR", "balanced acc.", "AP"):
        table.add_column(name, justify="left" if name == "perturbation" else "right")
    for row in found.sweep:
        numbers = [_number(value) for value in (row.tpr, row.fpr, row.balanced_accuracy, row.ap)]
        table.add_row(escape(row.name), str(row.n_real), str(row.n_ai), *numbers)
    return table


def ufd_table(found: UfdTable) -> Table:
    """
    The paper's table, its published accuracies beside ours.
    """
    table = Table(title="UniversalFakeDetect's nearest-neighbour rule, accuracy in percent")
    probed = any(row.probe is not None for row in found.rows)
    probe = ("probe_ufd",) if probed else ()
    papers = ("paper k=1", "paper k=9", "paper linear")
    for name in ("test set", "real", "generated", *(f"k={k}" for k in KS), *probe, *papers):
        table.add_column(name, justify="left" if name == "test set" else "right")
    for row in found.rows:
        paper = row.published
        published = ("-",) * 3 if paper is None else (f"{paper.k1:.2f}", f"{paper.k9:.2f}", f"{paper.linear:.2f}")
        ours = [f"{row.accuracy[k]:.2f}" for k in KS]
        ours += ["-" if row.probe is None else f"{row.probe:.2f}"] if probed else []
        table.add_row(escape(row.name), str(row.n_real), str(row.n_ai), *ours, *published)
    mean = [f"{found.mean[k]:.2f}" for k in KS]
    mean += ["-" if found.probe_mean is None else f"{found.probe_mean:.2f}"] if probed else []
    paper_mean = PUBLISHED_MEAN
    table.add_section()
    table.add_row("mean", "", "", *mean, f"{paper_mean.k1:.2f}", f"{paper_mean.k9:.2f}", f"{paper_mean.linear:.2f}")
    return table


def interval(found: Interval) -> str:
    """
    ``0.812 (0.76-0.86) [0.61-0.93]``, the second over other sources too; or a dash.
    """
    if found.value is None:
        return "-"
    if found.low is None or found.high is None:
        return f"{found.value:.3f}"
    sources = ""
    if found.low_sources is not None and found.high_sources is not None:
        sources = f" [{found.low_sources:.2f}-{found.high_sources:.2f}]"
    return f"{found.value:.3f} ({found.low:.2f}-{found.high:.2f}){sources}"


def _better(name: str, compared: dict[str, Comparison]) -> tuple[str, str, str]:
    row = compared.get(name)
    return ("", "", "") if row is None else (row.better_ap, row.better_mean_ap, row.better_accuracy)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _over_sources(fpr: FalsePositiveRate) -> str:
    if fpr.low_sources is None or fpr.high_sources is None:
        return ""
    return f"; with other sources drawn too {fpr.low_sources:.1%} to {fpr.high_sources:.1%}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
