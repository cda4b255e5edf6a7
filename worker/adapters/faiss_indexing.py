"""
What ``worker.bank.indexing`` needs of FAISS: cells are made, and banks opened exactly and through their cells.
"""

import faiss

from worker.adapters.faiss_bank import FaissBank
from worker.adapters.faiss_cells import make_cells
from worker.bank.files import StoredBank
from worker.bank.indexing import IndexTools
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

    return IndexTools(make_cells, open_exact, open_carried, f"faiss {faiss.__version__}")
