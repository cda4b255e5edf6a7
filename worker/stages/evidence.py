"""
What a verdict shows of a neighbourhood: who voted, how near, and how each label stands. Nothing is decided here.
"""

from collections.abc import Sequence

from schemas.verdict import Evidence, LabelEvidence, NeighbourV1
from schemas.wire import round_significant, unchecked
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
    if holds_exact(vote, content_hash):
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


def holds_exact(vote: SoftVote, content_hash: str) -> bool:
    """
    Whether a reference that voted has the very bytes of the upload.
    """
    return any(neighbour.entry.sha256 == content_hash for _, neighbour, _ in vote.voters)


def is_exact(voter: Voter, content_hash: str) -> bool:
    """
    Whether this reference has the very bytes of the upload.
    """
    return voter.neighbour.entry.sha256 == content_hash


def _neighbour(voter: Voter, *, rank: int, exact: bool) -> NeighbourV1:
    entry, similarity = voter.neighbour
    # Not validated: the bank's entries were when it was opened, a cosine is finite, and a share lies between 0 and 1.
    fields = {
        "rank": rank,
        "entry_id": entry.id,
        "label": entry.label,
        "generator": entry.generator,
        "source": entry.source,
        "similarity": round_significant(similarity),
        "weight": round_significant(voter.share),
        "exact": exact,
    }
    return unchecked(NeighbourV1, fields)


def _label_evidence(label: Label, neighbourhood: Neighbourhood, vote: SoftVote) -> LabelEvidence:
    similarities = [neighbour.similarity for of_voter, neighbour, _ in vote.voters if of_voter == label]
    largest = largest_similarity(neighbourhood.nearest[label])
    # Not validated, as above.
    fields = {
        "entries": neighbourhood.sizes[label],
        "votes": len(similarities),
        "share": round_significant(vote.shares[label]),
        "max_similarity": None if largest is None else round_significant(largest),
        "mean_similarity": round_significant(sum(similarities) / len(similarities)) if similarities else None,
    }
    return unchecked(LabelEvidence, fields)
