"""
From embeddings to neighbourhoods, through the bank's port.

How deep to ask is the vote's affair; how to search, the adapter's.
"""

from collections.abc import Sequence

from worker.domain import Embedding, Neighbourhood
from worker.ports import Bank
from worker.stages.vote import vote_depth


def find_neighbours(bank: Bank, embeddings: Sequence[Embedding], *, k: int) -> Sequence[Neighbourhood]:
    """
    The neighbourhood of each embedding, in order, as deep as a vote with ``k`` needs it.

    Every label is asked for the whole depth, since all that vote may be of one label. One search for all embeddings;
    what it costs grows with the bank, hardly with their number.
    """
    if not embeddings:
        return []
    return bank.nearest(embeddings, vote_depth(k, bank.identity.sizes))
