"""
How well an approximate index does beside an exact one: what it finds of the nearest, and what is decided with it.

Asked are references of the bank and, as often, what no reference is like: whoever means harm chooses the query.

Both are asked through the bank's port, so that nothing here knows FAISS.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.bank.files import StoredBank
from worker.bank.survey import Progress, no_progress
from worker.domain import Embedding, Label, Neighbourhood
from worker.heads.features import Matrix
from worker.policy import LabelRule, Rule, SurfacePolicy, load_policy, shipped_policy
from worker.ports import Bank
from worker.stages.decide import Terms, decide
from worker.stages.report import facts_of_bytes
from worker.stages.vote import vote_depth

SAMPLE: Final = 1_000
_SEED: Final = 11
_ASKED_AT_ONCE: Final = 32
_ROUNDING: Final = 1e-5

_OF_NO_SCENE: Final = 16
"""References whose differences from the centre are mixed at random: what comes of it lies near none of them."""

_OFF_CENTRE: Final = 0.25
"""Of a reference's difference from the centre, for queries that are near to nothing and about as near to everything."""

_CENTRE_OF: Final = 4_096
_LEAST_LENGTH: Final = 1e-6
_NOBODY: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class SearchQuality:
    """
    ``recall`` of the ``depth`` nearest in the worst label; ``agreement``: the share of ``queries`` decided alike.

    Alike is the same label, or abstaining, by the soft vote under the policy that ships.
    """

    recall: float
    agreement: float
    depth: int
    queries: int

    def worse(self, other: "SearchQuality") -> "SearchQuality":
        """
        The lower recall and the lower agreement, of the queries of both.
        """
        recall, agreement = min(self.recall, other.recall), min(self.agreement, other.agreement)
        return SearchQuality(recall, agreement, max(self.depth, other.depth), self.queries + other.queries)


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


def strangers_of(bank: StoredBank, count: int) -> Asked:
    """
    So many queries that are like no reference, the same each time.

    By thirds: halfway between two references; in directions in which references differ, but near none of them; and near
    the centre of all, where everything is about as near.
    """
    rng = np.random.default_rng(_SEED + 1)
    some = rng.permutation(len(bank.entries))[:_CENTRE_OF]
    centre = _unit(bank.vectors[some]).mean(axis=0)

    def of_bank(number: int) -> Matrix:
        drawn: Matrix = _unit(bank.vectors[rng.integers(0, len(bank.entries), number)])
        return drawn

    mixed, nowhere = (count + 2) // 3, (count + 1) // 3
    blends = [of_bank(mixed) + of_bank(mixed)]
    blends.append(centre + sum(_weights(rng, nowhere) * (of_bank(nowhere) - centre) for _ in range(_OF_NO_SCENE)))
    blends.append(centre + _OFF_CENTRE * (of_bank(count // 3) - centre))
    rows = np.concatenate(blends).astype(np.float32)
    rows = rows[np.linalg.norm(rows, axis=1) > _LEAST_LENGTH]  # two opposite references have no direction between them
    return Asked([Embedding.from_features(row) for row in rows], [None] * len(rows))


def _weights(rng: np.random.Generator, count: int) -> Matrix:
    weights: Matrix = rng.standard_normal((count, 1), dtype=np.float32) / np.float32(_OF_NO_SCENE**0.5)
    return weights


def _unit(rows: NDArray[np.float16]) -> Matrix:
    single: Matrix = rows.astype(np.float32)
    single /= np.linalg.norm(single, axis=1, keepdims=True)
    return single


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
    hits, wanted = dict.fromkeys(exact[0].nearest, 0), dict.fromkeys(exact[0].nearest, 0)
    agreed = 0
    for true, ours in zip(exact, found, strict=True):
        for label, nearest in true.nearest.items():
            least = nearest[-1].similarity - _ROUNDING if nearest else 0.0
            near = sum(neighbour.similarity >= least for neighbour in ours.nearest[label])
            hits[label] += min(near, len(nearest))
            wanted[label] += len(nearest)
        agreed += _decided(true) == _decided(ours)
    recall = min(hits[label] / wanted[label] for label in wanted if wanted[label])
    return SearchQuality(recall, agreed / len(exact), depth, len(exact))


def _decided(neighbourhood: Neighbourhood) -> Label | None:
    """
    The label that the shipped policy decides for by the soft vote; None where it abstains.
    """
    terms = _terms(tuple(neighbourhood.sizes))
    return decide(neighbourhood, facts_of_bytes(_NOBODY, 0), terms=terms).label


@cache
def _terms(labels: tuple[Label, ...]) -> Terms:
    """
    The default surface of the shipped policy; a label that it does not know must weigh as much as the strictest.
    """
    _, surface = load_policy(shipped_policy()).for_surface(None)
    strictest = max(surface.labels.values(), key=lambda one: one.threshold)
    of_labels: dict[str, LabelRule] = {label: surface.labels.get(label, strictest) for label in labels}
    fitting: SurfacePolicy = surface.model_copy(update={"labels": of_labels})
    return Terms(Rule(name="soft_vote"), fitting, labels[0])


def default_depth(bank: Bank) -> int:
    """
    How many neighbours of each label a vote with the default policy asks for.
    """
    return vote_depth(Rule().k, bank.identity.sizes)
