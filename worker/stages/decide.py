"""
From a neighbourhood to a judgement, under one surface of a policy.

Pure. The arithmetic of the vote is in ``worker.stages.vote``, the thresholds and actions are in ``worker.policy``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.verdict import (
    Evidence,
    ImageFacts,
    LabelEvidence,
    NeighbourV1,
    Reason,
    ReasonCode,
    ScoreComponent,
    Thresholds,
)
from worker.domain import Judgement, Label, Neighbourhood
from worker.policy import RULE_VERSIONS, Rule, SurfacePolicy
from worker.stages.vote import (
    SoftVote,
    Voter,
    coverage,
    largest_similarity,
    nearest_difference,
    nearest_neighbour_weights,
    soft_vote,
)


@dataclass(frozen=True, slots=True)
class _Reckoning:
    """
    Everything that was computed before any threshold was looked at.
    """

    weights: Mapping[Label, float]
    first: Label
    margin: float
    coverage: float
    vote: SoftVote


def decide(
    neighbourhood: Neighbourhood, facts: ImageFacts, *, rule: Rule, surface: SurfacePolicy, positive: Label
) -> Judgement:
    """
    The judgement of an upload with this neighbourhood: decided for the heaviest label, or abstained with every reason.

    Both rules give one weight per label, which sum to 1; ``rule.name`` says whose weights decide, and both stand in
    ``scores``: ``soft_vote`` is the positive label's share, ``nearest_neighbour`` the paper's difference of
    similarities. ``score`` is the deciding rule's weight of the bank's ``positive`` label. The evidence is always that
    of the soft vote. A tie for the first place is never decided.
    """
    vote = soft_vote(neighbourhood, k=rule.k, temperature=rule.temperature)
    if rule.name == "soft_vote":
        weights = vote.shares
    else:
        weights = nearest_neighbour_weights(neighbourhood, temperature=rule.temperature)
    ranked = sorted(weights, key=lambda label: -weights[label])
    reckoning = _Reckoning(
        weights, ranked[0], weights[ranked[0]] - weights[ranked[1]], coverage(neighbourhood, rule.k), vote
    )
    doubts = _doubts(reckoning, facts, surface)
    exact = any(voter.neighbour.entry.sha256 == facts.sha256 for voter in vote.voters)
    label_rule = surface.labels[reckoning.first]
    return Judgement(
        status="abstained" if doubts else "decided",
        label=None if doubts else reckoning.first,
        action=surface.abstained if doubts else label_rule.action,
        score=weights[positive],
        margin=reckoning.margin,
        reasons=(*(doubts or [_grounds(reckoning, neighbourhood)]), *_exact_reasons(exact=exact)),
        thresholds=thresholds_of(rule, surface),
        scores=(
            ScoreComponent(name="soft_vote", value=vote.shares[positive], version=RULE_VERSIONS["soft_vote"]),
            ScoreComponent(
                name="nearest_neighbour",
                value=nearest_difference(neighbourhood, positive),
                version=RULE_VERSIONS["nearest_neighbour"],
            ),
        ),
        evidence=_evidence(reckoning, neighbourhood, content_hash=facts.sha256, limit=rule.max_neighbours),
    )


def thresholds_of(rule: Rule, surface: SurfacePolicy) -> Thresholds:
    """
    The numbers that a verdict reports, those of failed uploads included.
    """
    return Thresholds(
        rule=rule.name,
        labels={label: label_rule.threshold for label, label_rule in surface.labels.items()},
        min_margin=surface.min_margin,
        min_similarity=surface.min_similarity,
        k=rule.k,
        temperature=rule.temperature,
    )


def _doubts(reckoning: _Reckoning, facts: ImageFacts, surface: SurfacePolicy) -> list[Reason]:
    doubts = _doubts_about_the_picture(facts, surface)
    if reckoning.coverage < surface.min_similarity:
        doubts.append(
            Reason(
                code=ReasonCode.LOW_COVERAGE,
                message=f"the bank holds too little like it: the k-th nearest reference has similarity "
                f"{reckoning.coverage:.3f}, wanted {surface.min_similarity:.3f}",
            )
        )
    if reckoning.margin < surface.min_margin or reckoning.margin <= 0:
        doubts.append(
            Reason(
                code=ReasonCode.LOW_MARGIN,
                message=f"{reckoning.first} leads by {reckoning.margin:.3f}, wanted {surface.min_margin:.3f} "
                "and no tie",
            )
        )
    weight, threshold = reckoning.weights[reckoning.first], surface.labels[reckoning.first].threshold
    if weight < threshold:
        doubts.append(
            Reason(
                code=ReasonCode.BELOW_THRESHOLD,
                message=f"{reckoning.first} has weight {weight:.3f}, wanted {threshold:.3f}",
            )
        )
    return doubts


def _doubts_about_the_picture(facts: ImageFacts, surface: SurfacePolicy) -> list[Reason]:
    if facts.width is None or facts.height is None:
        return []
    doubts = []
    short, long = sorted((facts.width, facts.height))
    if short < surface.min_side_px:
        doubts.append(
            Reason(
                code=ReasonCode.IMAGE_TOO_SMALL,
                message=f"the short side has {short} px, wanted {surface.min_side_px}",
            )
        )
    if long > short * surface.max_aspect:
        doubts.append(
            Reason(
                code=ReasonCode.ASPECT_EXTREME,
                message=f"the sides are {facts.width} x {facts.height}, wanted at most {surface.max_aspect:g} : 1",
            )
        )
    return doubts


def _grounds(reckoning: _Reckoning, neighbourhood: Neighbourhood) -> Reason:
    voters = reckoning.vote.voters
    for_it = sum(voter.label == reckoning.first for voter in voters)
    nearest = largest_similarity(neighbourhood.nearest[reckoning.first])
    return Reason(
        code=ReasonCode.NEAREST_NEIGHBOURS,
        message=f"{for_it} of {len(voters)} neighbours are {reckoning.first}, "
        f"the nearest with similarity {nearest if nearest is not None else -1:.3f}; "
        f"weight {reckoning.weights[reckoning.first]:.3f}",
    )


def _exact_reasons(*, exact: bool) -> tuple[Reason, ...]:
    if not exact:
        return ()
    return (Reason(code=ReasonCode.EXACT_MATCH, message="these very bytes are a reference of the bank"),)


def _evidence(reckoning: _Reckoning, neighbourhood: Neighbourhood, *, content_hash: str, limit: int) -> Evidence:
    vote = reckoning.vote
    # Among equals the upload's own bytes come first, so that the cap never hides an exact match.
    shown = sorted(vote.voters, key=lambda voter: (-voter.neighbour.similarity, not _is_exact(voter, content_hash)))
    return Evidence(
        voted=len(vote.voters),
        coverage=reckoning.coverage,
        neighbours=tuple(
            _neighbour(voter, rank=rank, exact=_is_exact(voter, content_hash))
            for rank, voter in enumerate(shown[:limit], start=1)
        ),
        per_label={label: _label_evidence(label, neighbourhood, vote) for label in neighbourhood.sizes},
    )


def _is_exact(voter: Voter, content_hash: str) -> bool:
    return voter.neighbour.entry.sha256 == content_hash


def _neighbour(voter: Voter, *, rank: int, exact: bool) -> NeighbourV1:
    entry = voter.neighbour.entry
    return NeighbourV1(
        rank=rank,
        entry_id=entry.id,
        label=entry.label,
        generator=entry.generator,
        source=entry.source,
        similarity=voter.neighbour.similarity,
        weight=voter.share,
        exact=exact,
    )


def _label_evidence(label: Label, neighbourhood: Neighbourhood, vote: SoftVote) -> LabelEvidence:
    similarities = [voter.neighbour.similarity for voter in vote.voters if voter.label == label]
    return LabelEvidence(
        entries=neighbourhood.sizes[label],
        votes=len(similarities),
        share=vote.shares[label],
        max_similarity=largest_similarity(neighbourhood.nearest[label]),
        mean_similarity=sum(similarities) / len(similarities) if similarities else None,
    )
