"""
The canaries of a release, judged by the judge that is to use it: before it judges any upload.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from schemas.bank_control import BankControlV1
from worker.bank.canary_files import Canary
from worker.bank.leaving_out import Without
from worker.domain import Sighting
from worker.errors import BankInvalid
from worker.flow.bank_judge import BankJudge
from worker.settings.tree import BankSettings
from worker.stages.decide import Terms, decide
from worker.stages.match import find_neighbours

log = structlog.get_logger(__name__)

NAMED: Final = 5
"""Of the canaries that went wrong, so many are named, the worst first."""


@dataclass(frozen=True, slots=True)
class Miss:
    """
    A canary that was not decided as expected: ``decision`` is a label or None, ``weight`` that of the expected label.
    """

    name: str
    expected: str
    decision: str | None
    weight: float

    def told(self) -> str:
        """
        In a few words.
        """
        return f"{self.name} (expected {self.expected}, {self.decision or 'uncertain'}, {self.weight:.3f} for it)"


def canary_misses(judge: BankJudge, canaries: Sequence[Canary]) -> list[Miss]:
    """
    The canaries that this judge does not decide as expected on its default surface, the worst first.
    """
    if not canaries:
        return []
    sightings = _as_if_new(judge, [canary.sighting for canary in canaries])
    rule, positive = judge.policy.rule, judge.bank.identity.positive
    _, surface = judge.policy.for_surface(None)
    neighbourhoods = find_neighbours(judge.bank, [one.embedding for one in sightings], k=rule.k)
    assessed = [None] * len(sightings) if judge.fitted is None else judge.fitted.assess(sightings)
    terms = Terms(rule, surface, positive, judge.policy.provenance)
    misses = []
    for canary, sighting, near, assessment in zip(canaries, sightings, neighbourhoods, assessed, strict=True):
        found = decide(near, sighting.facts, terms=terms, assessed=assessment)
        if found.label != canary.expected:
            weight = found.score if canary.expected == positive else 1 - found.score
            misses.append(Miss(canary.name, canary.expected, found.label, weight))
    return sorted(misses, key=lambda miss: (miss.weight, miss.name))


def try_canaries(
    judge: BankJudge,
    canaries: Sequence[Canary],
    control: BankControlV1,
    *,
    wanted: BankSettings,
    whole: Callable[[], BankJudge] | None = None,
) -> None:
    """
    Refuse a release whose canaries are not judged as expected, or are wanted and missing. Raises ``BankInvalid``.

    What an operator takes out of a release must go at once, though canaries leaned on it: a release of which something
    is disabled has to pass with nothing left out, by the judge that ``whole`` opens; without ``whole`` it has passed.
    """
    require_canaries(f"release {control.release}", canaries, wanted)
    if control.canaries_sha256 is None:
        log.info("bank.no_canaries", release=control.release, advice="publish with --canaries, to try a bank first")
        return
    misses, total = canary_misses(judge, canaries), len(canaries)
    if not misses or Without.of(control) == Without():
        if whole is not None:
            require_agreement(misses, total, agreement=wanted.canary_agreement)
        log.info("bank.canaries_judged", release=control.release, canaries=total, missed=len(misses))
        return
    if whole is not None:
        require_agreement(canary_misses(whole(), canaries), total, agreement=wanted.canary_agreement)
    log.warning("bank.canaries_missed", release=control.release, missed=len(misses), canaries=total)


def try_own_canaries(
    judge: BankJudge,
    canaries: Sequence[Canary],
    wanted: BankSettings,
    *,
    whole: Callable[[], BankJudge] | None = None,
) -> None:
    """
    Refuse a bank at ``bank.path`` whose own canaries are not judged as expected, or wanted and missing.

    Raises ``BankInvalid``. As of a release, of which something is disabled: with what is quarantined left out they
    may miss, since `touchstone bank disable` must keep no worker from starting; with nothing left out, by the judge
    that ``whole`` opens, they must pass. Without ``whole`` nothing is left out.
    """
    require_canaries("the bank", canaries, wanted)
    if not canaries:
        return
    misses, total, index = canary_misses(judge, canaries), len(canaries), judge.bank.identity.index
    if whole is None or not misses:
        require_agreement(misses, total, agreement=wanted.canary_agreement)
        log.info("bank.canaries_judged", index=index, canaries=total, missed=len(misses))
        return
    require_agreement(canary_misses(whole(), canaries), total, agreement=wanted.canary_agreement)
    log.warning(
        "bank.canaries_missed",
        index=index,
        missed=len(misses),
        canaries=total,
        worst=[miss.told() for miss in misses[:NAMED]],
        advice="references that canaries lean on are quarantined; build the bank again without them, with canaries",
    )


def require_canaries(what: str, canaries: Sequence[Canary], wanted: BankSettings) -> None:
    """
    Refuse what has no canaries where the settings want some. Raises ``BankInvalid``.
    """
    if wanted.require_canaries and not canaries:
        raise BankInvalid(
            f"{what} has no canaries, and bank.require_canaries is true: nothing shows that it judges as it should; "
            "publish the bank with `touchstone bank publish --canaries DIR|CSV`, and activate that release"
        )


def require_agreement(misses: Sequence[Miss], total: int, *, agreement: float) -> None:
    """
    Refuse where fewer than this share of the canaries were decided as expected. Raises ``BankInvalid``.
    """
    right = total - len(misses)
    if not total or right / total >= agreement:
        return
    worst = "; ".join(miss.told() for miss in misses[:NAMED])
    raise BankInvalid(
        f"{right} of {total} canaries were judged as expected, bank.canary_agreement wants {agreement * 100:.4g} %. "
        f"The worst: {worst}. Look at what changed in this bank, or correct the canaries and publish it again"
    )


def _as_if_new(judge: BankJudge, sightings: Sequence[Sighting]) -> list[Sighting]:
    """
    With the shift only where this judge would have had it measured.
    """
    wanted = [False] * len(sightings) if judge.fitted is None else judge.fitted.wants_shift(sightings)
    return [one if wants else replace(one, shift=None) for one, wants in zip(sightings, wanted, strict=True)]
