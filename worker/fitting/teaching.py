"""
What adding references changed: how the new pictures and the bank's reals are judged before and after.

No new picture is judged by heads or neighbours that had it, or that half of the new pictures which it is in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from worker.assessment import Assessment
from worker.fitting.fit import FitPlan
from worker.fitting.folds import content_parts
from worker.fitting.one_thread import one_thread
from worker.heads.features import Column, References
from worker.heads.reference_bank import ExactBank
from worker.judgement.attribution import generator_codes
from worker.judgement.model import FittedJudgement

ALPHA: Final = 0.05
"""The false-positive rate at which recall is told where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class Taught:
    """
    Shares of new pictures of the positive label that are recognised, 0 to 1; ``before`` is None without a judgement.

    ``likely``: with log-odds above even; ``flagged``: with a p-value of at most ``TeachReport.alpha``.
    """

    generator: str
    pictures: int
    likely_before: float | None
    likely_after: float
    flagged_before: float | None
    flagged_after: float


@dataclass(frozen=True, slots=True)
class TeachReport:
    """
    What adding references changed.

    ``false_before`` and ``false_after``: share of the calibration's reals with log-odds above even, each judged by
    heads that had not seen it; ``reals_before`` and ``reals_after`` say of how many, ``calibrated_before`` and
    ``calibrated_after`` on what: reals of two calibrations are not the same pictures.
    """

    alpha: float
    taught: tuple[Taught, ...]
    reals_before: int | None
    reals_after: int
    false_before: float | None
    false_after: float
    calibrated_before: Literal["separate", "out_of_fold"] | None = None
    calibrated_after: Literal["separate", "out_of_fold"] = "out_of_fold"

    @property
    def warning(self) -> str | None:
        """
        What was lost where the bank had been calibrated on pictures of their own and now is not.
        """
        if (self.calibrated_before, self.calibrated_after) != ("separate", "out_of_fold"):
            return None
        return (
            f"the bank had been calibrated on {self.reals_before} real pictures that were not in it; none were given "
            f"now, so it is calibrated on its own {self.reals_after}, and its false-positive guarantee is approximate: "
            "give `bank add` the pictures again with --calibration, or run `touchstone fit` with --calibration"
        )

    def values(self) -> Mapping[str, object]:
        """
        The report as one JSON object.
        """
        return {
            "alpha": self.alpha,
            "generators": {
                one.generator: {
                    "pictures": one.pictures,
                    "likely": {"before": one.likely_before, "after": one.likely_after},
                    "flagged": {"before": one.flagged_before, "after": one.flagged_after},
                }
                for one in self.taught
            },
            "reals": {
                "before": {"count": self.reals_before, "likely": self.false_before},
                "after": {"count": self.reals_after, "likely": self.false_after},
            },
            "calibrated_on": {"before": self.calibrated_before, "after": self.calibrated_after},
            "warning": self.warning,
        }

    def lines(self) -> tuple[str, ...]:
        """
        The report for people, one line per fact.
        """
        taught = [
            f"{one.generator}, {one.pictures} new: recognised {_change(one.likely_before, one.likely_after)}, flagged "
            f"at a false-positive rate of {self.alpha:g} {_change(one.flagged_before, one.flagged_after)}"
            for one in self.taught
        ]
        before = (
            ""
            if self.false_before is None
            else f"{self.false_before:.0%} of {self.reals_before} before ({_spoken(self.calibrated_before)}), "
        )
        now = f"{self.false_after:.0%} of {self.reals_after} now ({_spoken(self.calibrated_after)})"
        warning = () if self.warning is None else (f"warning: {self.warning}",)
        return (*taught, f"reals taken for generated: {before}{now}", *warning)


def teach_report(
    old: tuple[FittedJudgement, References] | None,
    new: tuple[FittedJudgement, References],
    *,
    plan: FitPlan,
) -> TeachReport:
    """
    Compare the judgement of a bank before with that after references were added; None for a bank that had none.

    Before: the old judgement against the old bank. After: for either half of the new pictures, the new judgement with
    its heads fitted again without that half, against the new bank without it. What the heads weigh and what a score
    means is the new judgement's own, which saw every new picture only through heads that had not. Costs two fits of
    every head, on one thread as ``fit_judgement``.
    """
    with one_thread():
        return _report(old, new, plan)


def _report(
    old: tuple[FittedJudgement, References] | None, new: tuple[FittedJudgement, References], plan: FitPlan
) -> TeachReport:
    judgement, references = new
    held = set(old[1].content) if old is not None else set()
    rows = [row for row, content in enumerate(references.content) if content not in held and references.positive[row]]
    added = references.take(rows)
    # A calibration too small for it tells of the smallest rate that it supports.
    alpha = max(plan.alpha or ALPHA, judgement.smallest_alpha)
    after = _judged_in_halves(judgement.serving(alpha, None), references, rows, plan)
    before = old[0].serving(alpha, None).assess(added.features, ExactBank(old[1])) if old is not None and rows else None
    names, codes = generator_codes(added)
    taught = tuple(
        Taught(
            generator=name,
            pictures=int((codes == code).sum()),
            likely_before=_likely(before, codes == code),
            likely_after=_likely(after, codes == code) or 0.0,
            flagged_before=_flagged(before, codes == code, alpha),
            flagged_after=_flagged(after, codes == code, alpha) or 0.0,
        )
        for code, name in enumerate(names)
        if (codes == code).any()
    )
    return TeachReport(
        alpha=alpha,
        taught=taught,
        reals_before=None if old is None else len(old[0].reals.full),
        reals_after=len(judgement.reals.full),
        false_before=None if old is None else _false_share(old[0]),
        false_after=_false_share(judgement),
        calibrated_before=None if old is None else old[0].calibrated_on,
        calibrated_after=judgement.calibrated_on,
    )


def _judged_in_halves(
    judgement: FittedJudgement, references: References, rows: list[int], plan: FitPlan
) -> list[Assessment]:
    """
    What the new pictures are judged to be, each without its own half; in the order of ``rows``.
    """
    found: dict[int, Assessment] = {}
    halves = content_parts(references, rows, 2)
    everything = np.arange(len(references))
    for half in (0, 1):
        asked = [row for row, part in zip(rows, halves, strict=True) if part == half]
        if not asked:
            continue
        known = references.take([int(row) for row in np.setdiff1d(everything, asked)])
        shadow = _refitted(judgement, known, plan)
        found |= zip(asked, shadow.assess(references.features.take(asked), ExactBank(known)), strict=True)
    return [found[row] for row in rows]


def _refitted(judgement: FittedJudgement, known: References, plan: FitPlan) -> FittedJudgement:
    """
    The same judgement with heads, and generators, of these references alone.
    """
    fit = {recipe.name: recipe.fit for recipe in plan.recipes}
    ready = {head.name: head for head in plan.ready}
    heads = tuple(
        fit[head.name](known, plan.seed) if head.name in fit else ready.get(head.name, head) for head in judgement.heads
    )
    names, code = generator_codes(known)
    return replace(judgement, heads=heads, attribution=replace(judgement.attribution, names=names, code=code))


def _likely(found: list[Assessment] | None, of: Column) -> float | None:
    return (
        None
        if found is None
        else float(np.mean([one.log_odds > 0 for one, asked in zip(found, of, strict=True) if asked]))
    )


def _flagged(found: list[Assessment] | None, of: Column, alpha: float) -> float | None:
    if found is None:
        return None
    return float(np.mean([one.p_value <= alpha for one, asked in zip(found, of, strict=True) if asked]))


def _false_share(judgement: FittedJudgement) -> float:
    return float((judgement.calibration.log_odds(judgement.reals.full) > 0).mean())


def _change(before: float | None, after: float) -> str:
    return f"{after:.0%}" if before is None else f"{before:.0%} before, {after:.0%} now"


def _spoken(calibrated: str | None) -> str:
    return "calibrated on other pictures" if calibrated == "separate" else "calibrated on its own"
