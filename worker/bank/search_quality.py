"""
How well an approximate index does beside an exact one: what it finds of the nearest, and what a vote makes of it.

Both are asked through the bank's port, so that nothing here knows FAISS.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from worker.bank.files import StoredBank
from worker.bank.survey import Progress, no_progress
from worker.domain import Embedding, Neighbourhood
from worker.policy import Rule
from worker.ports import Bank
from worker.stages.vote import soft_vote, vote_depth

SAMPLE: Final = 1_000
_SEED: Final = 11
_ASKED_AT_ONCE: Final = 32
_ROUNDING: Final = 1e-5


@dataclass(frozen=True, slots=True)
class SearchQuality:
    """
    ``recall`` of the ``depth`` nearest in the worst label; ``agreement``: the share of ``queries`` with equal votes.
    """

    recall: float
    agreement: float
    depth: int
    queries: int


@dataclass(frozen=True, slots=True)
class Asked:
    """
    Queries, and for each the id of the reference that it is: that one is no neighbour of it. None where it is none.
    """

    embeddings: Sequence[Embedding]
    itself: Sequence[str | None]


def sample_of(bank: StoredBank, count: int = SAMPLE) -> Asked:
    """
    So many references of a bank, the same each time; to every label but its own each is a stranger, as an upload is.
    """
    rows = np.sort(np.random.default_rng(_SEED).permutation(len(bank.entries))[:count])
    embeddings = [Embedding.from_half(bank.vectors[row]) for row in rows]
    return Asked(embeddings, [bank.entries.entry(int(row)).id for row in rows])


def neighbourhoods(bank: Bank, asked: Asked, *, depth: int, progress: Progress = no_progress) -> list[Neighbourhood]:
    """
    The ``depth`` nearest of each label for every query, itself left out.
    """
    found: list[Neighbourhood] = []
    total = len(asked.embeddings)
    for start in range(0, total, _ASKED_AT_ONCE):
        pieces = bank.nearest(asked.embeddings[start : start + _ASKED_AT_ONCE], depth + 1)
        for one, itself in zip(pieces, asked.itself[start : start + _ASKED_AT_ONCE], strict=True):
            others = {
                label: tuple(neighbour for neighbour in nearest if neighbour.entry.id != itself)[:depth]
                for label, nearest in one.nearest.items()
            }
            found.append(replace(one, nearest=others))
        progress(f"searching {bank.identity.index.partition('(')[0]}", min(start + _ASKED_AT_ONCE, total), total)
    return found


def compared(exact: Sequence[Neighbourhood], found: Sequence[Neighbourhood], *, depth: int) -> SearchQuality:
    """
    What ``found`` has of ``exact``, query by query; whoever is as similar as the true last may stand in for it.

    Raises ``ValueError`` without any query.
    """
    if not exact:
        raise ValueError("no query was asked: nothing can be compared")
    rule = Rule()
    hits, wanted = dict.fromkeys(exact[0].nearest, 0), dict.fromkeys(exact[0].nearest, 0)
    agreed = 0
    for true, ours in zip(exact, found, strict=True):
        for label, nearest in true.nearest.items():
            least = nearest[-1].similarity - _ROUNDING if nearest else 0.0
            near = sum(neighbour.similarity >= least for neighbour in ours.nearest[label])
            hits[label] += min(near, len(nearest))
            wanted[label] += len(nearest)
        votes = [soft_vote(one, k=rule.k, temperature=rule.temperature).shares for one in (true, ours)]
        agreed += max(votes[0], key=votes[0].__getitem__) == max(votes[1], key=votes[1].__getitem__)
    recall = min(hits[label] / wanted[label] for label in wanted if wanted[label])
    return SearchQuality(recall, agreed / len(exact), depth, len(exact))


def default_depth(bank: Bank) -> int:
    """
    How many neighbours of each label a vote with the default policy asks for.
    """
    return vote_depth(Rule().k, bank.identity.sizes)
