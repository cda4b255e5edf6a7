"""
What a verdict shows of a neighbourhood: who voted, how near, and how each label stands. Nothing is decided here.
"""

from collections.abc import Sequence

from schemas.verdict import Evidence, LabelEvidence, NeighbourV1
from worker.domain import Label, Neighbourhood
from worker.stages.vote import SoftVote, Voter, largest_similarity


def evidence_of_vote(
    vote: SoftVote, neighbourhood: Neighbourhood, *, coverage: float, content_hash: str, limit: int
) -> Evidence:
    """
    The evidence of a soft vote: its ``limit`` most similar voters, and every label's share.

    Among equals the upload's own bytes (``content_hash``) come first, so that the limit never hides an exact match.
    """
    shown: Sequence[Voter] = vote.voters
    if any(is_exact(voter, content_hash) for voter in shown):
        shown = sorted(shown, key=lambda voter: (-voter.neighbour.similarity, not is_exact(voter, content_hash)))
    return Evidence(
        voted=len(vote.voters),
        coverage=coverage,
        neighbours=tuple(
            _neighbour(voter, rank=rank, exact=is_exact(voter, content_hash))
            for rank, voter in enumerate(shown[:limit], start=1)
        ),
        per_label={label: _label_evidence(label, neighbourhood, vote) for label in neighbourhood.sizes},
    )


def is_exact(voter: Voter, content_hash: str) -> bool:
    """
    Whether this reference has the very bytes of the upload.
    """
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
