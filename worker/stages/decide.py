"""
From a neighbourhood, and from an assessment where there is one, to a judgement under one surface of a policy.

Pure. The votes are in ``worker.stages.vote``, the fitted judgement's answer in ``worker.stages.assess``, the reasons in
``worker.stages.reasons``, the thresholds and actions in ``worker.policy``.
"""

from dataclasses import dataclass, field
from typing import Final

from schemas.judgement import AttributionV1, CalibrationV1
from schemas.verdict import AppliedRule, ImageFacts, Reason, ReasonCode, ScoreComponent, Thresholds
from schemas.wire import round_significant, unchecked
from worker.assessment import Assessment
from worker.domain import Judgement, Label, Neighbourhood
from worker.policy import RULE_VERSIONS, CredentialsRule, Rule, SurfacePolicy
from worker.stages.assess import Assessed
from worker.stages.credentials import assertion_of_generation, note_on_invalid
from worker.stages.evidence import evidence_of_vote, holds_exact
from worker.stages.reasons import Reckoning, doubts_about, grounds_for
from worker.stages.vote import coverage, nearest_difference, nearest_neighbour_weights, soft_vote

MAX_GENERATORS: Final = 5
"""The most that a verdict's attribution names."""


@dataclass(frozen=True, slots=True)
class Terms:
    """
    What an upload is judged under: the policy's rule, its word on credentials, and the surface; the bank's positive.
    """

    rule: Rule
    surface: SurfacePolicy
    positive: Label
    credentials: CredentialsRule = field(default_factory=CredentialsRule)
    _reported: dict[str | None, Thresholds] = field(default_factory=dict, init=False, repr=False, compare=False)

    def applied(self, *, fitted: bool) -> AppliedRule:
        """
        The rule that decides: ``auto`` is ``fused`` where there is a fitted judgement to ask.
        """
        if self.rule.name != "auto":
            return self.rule.name
        return "fused" if fitted else "soft_vote"

    def reported(self, judgement_id: str | None) -> Thresholds:
        """
        See ``thresholds_of``; one value for all verdicts under these terms.
        """
        known = self._reported.get(judgement_id)
        if known is None:
            known = self._reported[judgement_id] = Thresholds(
                rule=self.applied(fitted=judgement_id is not None),
                labels={label: rule.threshold for label, rule in self.surface.labels.items()},
                min_margin=self.surface.min_margin,
                min_similarity=self.surface.min_similarity,
                k=self.rule.k,
                temperature=self.rule.temperature,
                calibration_id=judgement_id,
            )
        return known


def decide(
    neighbourhood: Neighbourhood, facts: ImageFacts, *, terms: Terms, assessed: Assessed | None = None
) -> Judgement:
    """
    The judgement of an upload: decided for the heaviest label, or abstained with every reason.

    Every rule gives one weight per label, which sum to 1. ``fused`` weighs the positive label with its calibrated
    probability at the policy's base rate, decides for it only where the conformal p-value is at most the flag
    threshold, and for the other label only where it is above: so P(positive | real) stays below the policy's alpha. It
    abstains far from the bank. The evidence is that of the soft vote under every rule. ``score`` is the deciding rule's
    weight of the positive label; a tie for the first place is never decided.

    Content credentials that assert a trained model, and are good enough for the policy, decide for its label whatever
    the picture looks like; they leave score, probability and margin as they are.

    Raises ``ValueError`` when ``fused`` is applied without an assessment, or to more than two labels.
    """
    rule = terms.rule
    reckoning = _reckoned(neighbourhood, terms, assessed)
    doubts = doubts_about(reckoning, facts, terms.surface, terms.positive)
    asserted = assertion_of_generation(facts.credentials, terms.credentials)
    label: Label | None = None if doubts else reckoning.first
    because = doubts or [grounds_for(reckoning, neighbourhood)]
    if asserted is not None and terms.credentials.label in terms.surface.labels:
        label, because = _with_credentials(Label(terms.credentials.label), label, because, asserted)
    exact = holds_exact(reckoning.vote, facts.sha256)
    assessment = None if reckoning.assessed is None else reckoning.assessed.assessment
    return Judgement(
        status="abstained" if label is None else "decided",
        label=label,
        action=terms.surface.abstained if label is None else terms.surface.labels[label].action,
        score=reckoning.weights[terms.positive],
        margin=reckoning.margin,
        reasons=(*because, *_exact_reasons(exact=exact), *note_on_invalid(facts.credentials)),
        thresholds=thresholds_of(terms, None if reckoning.assessed is None else reckoning.assessed.judgement_id),
        scores=_scores(reckoning, neighbourhood, terms.positive),
        evidence=evidence_of_vote(
            reckoning.vote,
            neighbourhood,
            coverage=reckoning.coverage,
            content_hash=facts.sha256,
            limit=rule.max_neighbours,
        ),
        probability=None if assessment is None else reckoning.weights[terms.positive],
        calibration=None if reckoning.assessed is None else _calibration(reckoning.assessed, rule),
        attribution=None if assessment is None else _attribution(assessment),
        missing_heads=() if assessment is None else assessment.missing,
    )


def thresholds_of(terms: Terms, judgement_id: str | None) -> Thresholds:
    """
    The numbers that a verdict reports, those of failed uploads included; ``judgement_id`` is None unless ``fused``.
    """
    return terms.reported(judgement_id)


def _reckoned(neighbourhood: Neighbourhood, terms: Terms, assessed: Assessed | None) -> Reckoning:
    rule, name = terms.rule, terms.applied(fitted=assessed is not None)
    vote = soft_vote(neighbourhood, k=rule.k, temperature=rule.temperature)
    if name == "soft_vote":
        weights = vote.shares
    elif name == "nearest_neighbour":
        weights = nearest_neighbour_weights(neighbourhood, temperature=rule.temperature)
    else:
        others = [label for label in neighbourhood.sizes if label != terms.positive]
        if assessed is None or len(others) != 1:
            raise ValueError(f"rule fused needs an assessment and two labels; found {assessed is not None}, {others}")
        probability = assessed.probability(rule.base_rate)
        weights = {terms.positive: probability, others[0]: 1 - probability}
    first, second = sorted(weights, key=lambda label: -weights[label])[:2]
    return Reckoning(
        weights=weights,
        first=first,
        margin=weights[first] - weights[second],
        coverage=coverage(neighbourhood, rule.k),
        vote=vote,
        rule=rule,
        assessed=assessed if name == "fused" else None,
    )


def _with_credentials(
    asserted_label: Label, found: Label | None, because: list[Reason], asserted: Reason
) -> tuple[Label, list[Reason]]:
    # What the picture itself gave is a reason beside them only where it says the same.
    return asserted_label, [asserted, *because] if found == asserted_label else [asserted]


def _exact_reasons(*, exact: bool) -> tuple[Reason, ...]:
    if not exact:
        return ()
    return (Reason(code=ReasonCode.EXACT_MATCH, message="these very bytes are a reference of the bank"),)


def _scores(reckoning: Reckoning, neighbourhood: Neighbourhood, positive: Label) -> tuple[ScoreComponent, ...]:
    heads = () if reckoning.assessed is None else reckoning.assessed.assessment.heads
    return (
        _score_of_rule("soft_vote", reckoning.vote.shares[positive]),
        _score_of_rule("nearest_neighbour", nearest_difference(neighbourhood, positive)),
        *(
            ScoreComponent(name=head.name, value=head.value, version=head.version, evidence=head.evidence)
            for head in heads
        ),
    )


def _score_of_rule(name: AppliedRule, value: float) -> ScoreComponent:
    # Not validated: a share or a difference of cosines is finite. What heads say is another matter.
    fields = {"name": name, "value": round_significant(value), "version": RULE_VERSIONS[name], "evidence": None}
    return unchecked(ScoreComponent, fields)


def _calibration(assessed: Assessed, rule: Rule) -> CalibrationV1:
    return CalibrationV1(
        id=assessed.judgement_id,
        p_value=assessed.assessment.p_value,
        alpha=rule.alpha,
        pac_delta=rule.pac_delta,
        flag_threshold=assessed.flag_threshold,
        guarantee=rule.guarantee,
        sources=assessed.assessment.sources,
        bucket=assessed.assessment.bucket,
        coverage_p=assessed.assessment.coverage_p,
        coverage_alpha=rule.coverage_alpha,
        base_rate=rule.base_rate,
    )


def _attribution(assessment: Assessment) -> AttributionV1:
    found = assessment.attribution
    likeliest = sorted(found.posterior.items(), key=lambda pair: (-pair[1], pair[0]))[:MAX_GENERATORS]
    return AttributionV1(generator=found.generator, probability=found.probability, posterior=dict(likeliest))
