"""
What ``worker.bank.indexing`` needs of FAISS: cells are made, and banks opened exactly and through their cells.
"""

from collections.abc import Sequence

import faiss
import numpy as np

from worker.adapters.faiss_bank import FaissBank
from worker.adapters.faiss_cell_scan import CellScan
from worker.adapters.faiss_cells import make_cells
from worker.adapters.faiss_shelf import SLACK
from worker.bank.files import StoredBank
from worker.bank.indexing import IndexTools
from worker.domain import Embedding
from worker.ports import Bank
from worker.settings.tree import BankSettings


def index_tools(settings: BankSettings) -> IndexTools:
    """
    The tools under these settings, of which only how exact search compares matters here.
    """
    exactly = settings.model_copy(update={"index": "flat"})
    carried = settings.model_copy(update={"index": "auto"})

    def open_exact(bank: StoredBank) -> FaissBank:
        return FaissBank(bank, exactly)

    def open_carried(bank: StoredBank) -> FaissBank:
        return FaissBank(bank, carried)

    return IndexTools(make_cells, open_exact, open_carried, _unsure, f"faiss {faiss.__version__}")


def _unsure(bank: Bank, embeddings: Sequence[Embedding], depth: int) -> float:
    """
    The share of the embeddings for which the nearest cells do not suffice, in the worst label; 0 without cells.
    """
    if not isinstance(bank, FaissBank):
        return 0.0
    queries = np.stack([embedding.vector for embedding in embeddings])
    indexes = [shelf.index for shelf in bank.shelves.values() if isinstance(shelf.index, CellScan)]
    shares = [float(index.unsure(queries, min(depth + 1 + SLACK, index.ntotal)).mean()) for index in indexes]
    return max(shares, default=0.0)
