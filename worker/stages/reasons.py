"""
Why a judgement comes out as it does: the grounds of a decision, and every doubt that stands against one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.verdict import ImageFacts, Reason, ReasonCode
from worker.domain import Label, Neighbourhood
from worker.policy import Rule, SurfacePolicy
from worker.stages.assess import Assessed
from worker.stages.decode_notes import UNSEEN_FRAMES
from worker.stages.vote import SoftVote, largest_similarity

STRONGEST: Final = 3
"""So many heads are named in the grounds of a calibrated decision."""

LONGEST_NAME: Final = 64
"""Characters of a source's name that a message shows."""


@dataclass(frozen=True, slots=True)
class Reckoning:
    """
    Everything that was computed before any threshold was looked at.

    ``weights`` are those of the deciding rule and sum to 1; ``margin`` is the lead of ``first`` over the second.
    ``coverage`` is the similarity of the k-th neighbour. ``assessed`` is None unless the rule is ``fused``.
    """

    weights: Mapping[Label, float]
    first: Label
    margin: float
    coverage: float
    vote: SoftVote
    rule: Rule
    assessed: Assessed | None


def doubts_about(reckoning: Reckoning, facts: ImageFacts, surface: SurfacePolicy, positive: Label) -> list[Reason]:
    """
    Every reason to abstain, in the order in which an operator would mend them; none means decided.
    """
    doubts = _doubts_about_the_picture(facts, surface)
    doubts += _doubts_about_unseen_frames(facts, reckoning.first, positive)
    doubts += _doubts_about_coverage(reckoning, surface)
    first, weight = reckoning.first, reckoning.weights[reckoning.first]
    if reckoning.margin < surface.min_margin or reckoning.margin <= 0:
        message = f"{first} leads by {reckoning.margin:.3f}, wanted {surface.min_margin:.3f} and no tie"
        doubts.append(Reason(code=ReasonCode.LOW_MARGIN, message=message))
    if weight < surface.labels[first].threshold:
        message = f"{first} has weight {weight:.3f}, wanted {surface.labels[first].threshold:.3f}"
        doubts.append(Reason(code=ReasonCode.BELOW_THRESHOLD, message=message))
    if reckoning.assessed is not None:
        doubts += _doubts_about_significance(reckoning.assessed, first, positive)
    return doubts


def grounds_for(reckoning: Reckoning, neighbourhood: Neighbourhood) -> Reason:
    """
    What speaks for the first label.
    """
    if reckoning.assessed is not None:
        return _calibrated_grounds(reckoning, reckoning.assessed)
    voters = reckoning.vote.voters
    for_it = sum(voter.label == reckoning.first for voter in voters)
    nearest = largest_similarity(neighbourhood.nearest[reckoning.first])
    return Reason(
        code=ReasonCode.NEAREST_NEIGHBOURS,
        message=f"{for_it} of {len(voters)} neighbours are {reckoning.first}, "
        f"the nearest with similarity {nearest if nearest is not None else -1:.3f}; "
        f"weight {reckoning.weights[reckoning.first]:.3f}",
    )


def _doubts_about_the_picture(facts: ImageFacts, surface: SurfacePolicy) -> list[Reason]:
    if facts.width is None or facts.height is None:
        return []
    doubts = []
    short, long = sorted((facts.width, facts.height))
    if short < surface.min_side_px:
        message = f"the short side has {short} px, wanted {surface.min_side_px}"
        doubts.append(Reason(code=ReasonCode.IMAGE_TOO_SMALL, message=message))
    if long > short * surface.max_aspect:
        message = f"the sides are {facts.width} x {facts.height}, wanted at most {surface.max_aspect:g} : 1"
        doubts.append(Reason(code=ReasonCode.ASPECT_EXTREME, message=message))
    return doubts


def _doubts_about_unseen_frames(facts: ImageFacts, first: Label, positive: Label) -> list[Reason]:
    # One frame that is generated is enough; that no frame is cannot be said of an animation of which a part was seen.
    unseen = sorted(UNSEEN_FRAMES & set(facts.warnings))
    if first == positive or not unseen:
        return []
    message = f"{first} is what was seen of the animation, and not all of it could be looked at: {', '.join(unseen)}"
    return [Reason(code=ReasonCode.FRAMES_UNSEEN, message=message)]


def _doubts_about_coverage(reckoning: Reckoning, surface: SurfacePolicy) -> list[Reason]:
    if reckoning.assessed is None:
        far = reckoning.coverage < surface.min_similarity
        found = (
            f"the k-th nearest reference has similarity {reckoning.coverage:.3f}, wanted {surface.min_similarity:.3f}"
        )
    else:
        coverage_p, least = reckoning.assessed.assessment.coverage_p, reckoning.rule.coverage_alpha
        # Asked this way round, a coverage that is no number is far: it must never pass for near.
        far = not coverage_p >= least
        found = f"a share of {coverage_p:.3g} of its like lies as far from it, wanted {least:g}"
    if not far:
        return []
    return [Reason(code=ReasonCode.LOW_COVERAGE, message=f"the bank holds too little like it: {found}")]


def _doubts_about_significance(assessed: Assessed, first: Label, positive: Label) -> list[Reason]:
    p_value, threshold = assessed.assessment.p_value, assessed.flag_threshold
    flagged = p_value <= threshold
    if first == positive and not flagged:
        message = (
            f"{first} is likelier, but real pictures look like this too often: p-value {p_value:.3g}"
            f"{_among(assessed)}, wanted at most {threshold:.3g}"
        )
        return [Reason(code=ReasonCode.NOT_SIGNIFICANT, message=message)]
    if first != positive and flagged:
        message = (
            f"{first} is likelier, but few real pictures look like this: p-value {p_value:.3g}"
            f"{_among(assessed)}, wanted above {threshold:.3g}"
        )
        return [Reason(code=ReasonCode.SIGNIFICANT, message=message)]
    return []


def _among(assessed: Assessed) -> str:
    """
    In which source of reals the p-value is as large as it is, where it is smaller among all.
    """
    source = assessed.assessment.source
    if source is None:
        return ""
    return f" among the reals of {source if len(source) <= LONGEST_NAME else source[:LONGEST_NAME] + '...'}"


def _calibrated_grounds(reckoning: Reckoning, assessed: Assessed) -> Reason:
    assessment, first = assessed.assessment, reckoning.first
    strongest = sorted(assessment.heads, key=lambda head: (-abs(head.evidence), head.name))[:STRONGEST]
    named = ", ".join(f"{head.name} {head.evidence:+.2f}" for head in strongest) or "none"
    compared = "at most" if assessment.p_value <= assessed.flag_threshold else "above"
    return Reason(
        code=ReasonCode.CALIBRATED,
        message=f"{first} has probability {reckoning.weights[first]:.3f}; p-value {assessment.p_value:.3g}"
        f"{_among(assessed)}, {compared} {assessed.flag_threshold:.3g}; strongest heads, in log-odds: {named}",
    )
