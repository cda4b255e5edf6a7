"""
The bank's port on FAISS: per label the nearest references of the global view, as neighbours.

How one label is searched is ``worker/adapters/faiss_shelf.py``; the heads' bank over the same vectors is
``worker/adapters/faiss_references.py``.
"""

from collections.abc import Mapping, Sequence

import faiss
import numpy as np
import structlog
from numpy.typing import NDArray

from worker.adapters.faiss_cell_scan import CellScan, Depth
from worker.adapters.faiss_cells import Sorted
from worker.adapters.faiss_shelf import EXACT, Shelf, build_shelf, search_shelf
from worker.bank.entries import EntryTable
from worker.bank.files import StoredBank
from worker.domain import BankIdentity, Embedding, Label, Neighbour, Neighbourhood
from worker.settings.tree import BankSettings

log = structlog.get_logger(__name__)


class FaissBank:
    """
    Searches a bank, one index per label. Read-only after construction, so any number of threads may search at once.

    Similarities are exact cosines, computed again in double precision for the candidates that FAISS proposes: they do
    not depend on the other embeddings of a search, and references of equal similarity come in the order of their
    entries. With ``index = "flat"`` the result is that of brute force. The index that a bank carries, ``hnsw`` and
    ``ivf`` may miss references, and the latter two may find fewer than ``k``; the graph of ``hnsw`` is built by several
    threads, so that two loads of one bank may miss different ones. What the carried one finds depends on the query
    alone; it is not used where many references are left out (``worker.bank.leaving_out``).
    """

    def __init__(self, bank: StoredBank, settings: BankSettings) -> None:
        # For the whole process: matrix products for small batches too. With the default a batch of 32 costs four times
        # as much (1e5 references of 768 dimensions, FAISS 1.15.1, 2 cores: 5.9 ms against 1.5 ms per query).
        faiss.cvar.distance_compute_blas_threshold = 1
        self._entries: EntryTable = bank.entries
        self._dim = bank.manifest.encoder.dim
        self._settings = settings
        if settings.index == "auto" and bank.manifest.search is not None and bank.search is None:
            log.warning(
                "bank.index_set_aside",
                bank=bank.manifest.id,
                version=bank.manifest.version,
                because="more than 1 % of a label is left out, and the index was tried with the whole bank: every "
                "reference is compared; build the bank without what is disabled and index it again",
            )
        self._shelves = {label: _shelf(bank, label, settings) for label in bank.sizes}
        self._identity = bank.identity(_described(self._shelves, settings))

    @property
    def identity(self) -> BankIdentity:
        """
        Which references these are, and through what they are searched.
        """
        return self._identity

    @property
    def shelves(self) -> Mapping[Label, Shelf]:
        """
        The indexes by label, for whoever searches the same vectors in another way.
        """
        return self._shelves

    @property
    def settings(self) -> BankSettings:
        """
        How the indexes were built.
        """
        return self._settings

    def nearest(self, embeddings: Sequence[Embedding], k: int) -> Sequence[Neighbourhood]:
        """
        For each embedding and for each label, its ``k`` nearest references (fewer where there are fewer).

        Blocks for one search per label. Raises ``ValueError`` for an embedding of another dimension or with a number
        that is not finite: FAISS would answer it like one that is near to nothing.
        """
        if k < 1:
            raise ValueError(f"k is {k}, want at least 1")
        if not embeddings:
            return []
        queries = self._queries(embeddings)
        found = {label: search_shelf(shelf, queries, k) for label, shelf in self._shelves.items()}
        return [
            Neighbourhood(
                nearest={label: self._neighbours(*of_label[number]) for label, of_label in found.items()},
                sizes=self._identity.sizes,
            )
            for number in range(len(embeddings))
        ]

    def _queries(self, embeddings: Sequence[Embedding]) -> NDArray[np.float64]:
        for number, embedding in enumerate(embeddings):
            if embedding.vector.shape != (self._dim,):
                raise ValueError(f"embedding {number} has {embedding.vector.shape[0]} dimensions, want {self._dim}")
        queries = np.stack([embedding.vector for embedding in embeddings]).astype(np.float64)
        if not np.isfinite(queries).all():
            number = int(np.flatnonzero(~np.isfinite(queries).all(axis=1))[0])
            raise ValueError(f"embedding {number} holds a number that is not finite; it must not be searched")
        unit: NDArray[np.float64] = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        return unit

    def _neighbours(self, rows: NDArray[np.int64], similarities: NDArray[np.float64]) -> tuple[Neighbour, ...]:
        return tuple(map(Neighbour, self._entries.entries(rows.tolist()), similarities.tolist()))


def _shelf(bank: StoredBank, label: Label, settings: BankSettings) -> Shelf:
    rows = bank.entries.rows_of(label)
    carried, record = bank.search, bank.manifest.search
    if settings.index != "auto" or carried is None or record is None:
        return build_shelf(bank.vectors, rows, settings, name=label)
    of_label = Sorted(carried.labels[label], carried.cell[rows], carried.codes[rows])
    return Shelf(CellScan(bank.vectors, rows, of_label, Depth(record.probes, record.pool, record.depth)), rows)


def _described(shelves: dict[Label, Shelf], settings: BankSettings) -> str:
    if settings.index == "auto" and all(isinstance(shelf.index, CellScan) for shelf in shelves.values()):
        return f"cells({','.join(f'{label}={shelf.index.described}' for label, shelf in shelves.items())})"
    if settings.index in EXACT:
        return "flat"
    if settings.index == "hnsw":
        return f"hnsw(links={settings.hnsw_links},ef_search={settings.hnsw_ef_search})"
    lists = ",".join(f"{label}={shelf.index.nlist}/{shelf.index.nprobe}" for label, shelf in shelves.items())
    return f"ivf({lists})"
