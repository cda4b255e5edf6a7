"""
What the index that a bank carries may not miss: queries unlike the bank, smaller banks, and more neighbours than tried.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from schemas.verdict import ImageFacts
from tests.bank_builders import GENERATED, REAL, a_stored_bank
from tests.brute_force_bank import BruteForceBank
from worker.adapters import faiss_cell_scan
from worker.adapters.faiss_bank import FaissBank
from worker.adapters.faiss_cell_scan import CellScan
from worker.adapters.faiss_cells import make_cells, sort_into_cells
from worker.adapters.faiss_indexing import index_tools
from worker.bank import indexing
from worker.bank.canary_files import Canary, read_canaries, write_canaries
from worker.bank.files import StoredBank, read_manifest, write_contents, write_manifest
from worker.bank.indexing import IndexPlan, index_bank, tried
from worker.bank.leaving_out import leave_out
from worker.bank.manifest import CANARY_FILES, MIN_SEARCH_QUALITY, SearchRecord
from worker.bank.search_quality import Asked, compared, neighbourhoods, strangers_of
from worker.bank.survey import no_progress
from worker.bank.verify import verify_bank
from worker.domain import BankIdentity, Embedding, Neighbourhood, Sighting
from worker.errors import ConfigInvalid
from worker.settings.tree import BankSettings

AUTO, FLAT = BankSettings(), BankSettings(index="flat")
DIM, SCENES = 24, 200


def scenes(count: int, seed: int) -> NDArray[np.float64]:
    """
    Vectors in scenes of some twenty, as near to each other as pictures of one thing are.
    """
    places = np.random.default_rng(1).normal(size=(SCENES, DIM))
    rng = np.random.default_rng(seed)
    found: NDArray[np.float64] = places[rng.integers(0, SCENES, count)] + 0.3 * rng.normal(size=(count, DIM))
    return found


@pytest.fixture(scope="module")
def bank() -> StoredBank:
    """
    A bank of 2000 real and 2000 generated references with the index that its trial chose.
    """
    stored = a_stored_bank({"real": scenes(2000, 2), "ai_generated": scenes(2000, 3)})
    cells = make_cells(stored, no_progress)
    record = tried(stored, cells, tools=index_tools(AUTO), sample=200)
    return replace(stored, manifest=stored.manifest.model_copy(update={"search": record}), search=cells)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """
    A bank of 700 references of each label on disk, without an index.
    """
    stored = a_stored_bank({"real": scenes(700, 2), "ai_generated": scenes(700, 3)})
    folder = tmp_path / "bank"
    folder.mkdir()
    sums = write_contents(folder, list(stored.entries), stored=stored.stored, probe=stored.probe, probe_png=b"png")
    write_manifest(folder, stored.manifest.model_copy(update={"checksums": sums}))
    return folder


def asked() -> list[Embedding]:
    """
    Sixty uploads of the same scenes.
    """
    return [Embedding.from_features(row.astype(np.float32)) for row in scenes(60, 9)]


def shallow(bank: StoredBank) -> StoredBank:
    """
    The bank searched in 8 of its cells: enough for its scenes, whereas for others it finds some seven of ten.
    """
    return replace(bank, manifest=bank.manifest.model_copy(update={"search": _depth(bank, 8)}))


def _depth(bank: StoredBank, probes: int) -> SearchRecord:
    assert bank.manifest.search is not None
    return bank.manifest.search.model_copy(update={"probes": probes, "pool": 2})


def test_without_many_every_reference_is_compared(bank: StoredBank) -> None:
    """
    More than one in a hundred of a label: cells that were tried full would be searched half empty.
    """
    rows = bank.entries.rows_of(GENERATED)
    order = np.argsort(-(bank.vectors[rows].astype(np.float32) @ asked()[0].vector))
    gone = rows[order[:80]]
    smaller = leave_out(bank, np.setdiff1d(np.arange(len(bank.entries)), gone))
    with capture_logs() as logged:
        searched = FaissBank(smaller, AUTO)

    assert searched.identity.index == f"flat without {smaller.without}"
    assert [one["event"] for one in logged] == ["bank.index_set_aside"]
    assert searched.nearest(asked(), 18) == FaissBank(smaller, FLAT).nearest(asked(), 18)


def test_who_is_unlike_the_bank_is_answered_as_exactly(bank: StoredBank) -> None:
    """
    Whoever uploads chooses the query: halfway between two references, near none, or near the centre of all.
    """
    strange = strangers_of(bank, 150)
    found, truth = (neighbourhoods(FaissBank(shallow(bank), one), strange, depth=18) for one in (AUTO, FLAT))
    quality = compared(truth, found, depth=18)

    assert (quality.queries, quality.agreement) == (150, 1.0)
    assert quality.recall >= 0.995


def test_part_of_many_cells_does_for_strangers_too(bank: StoredBank, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    In a large bank a quarter of the cells is looked at before all of them are.
    """
    monkeypatch.setattr(faiss_cell_scan, "_MANY", 1)
    monkeypatch.setattr(faiss_cell_scan, "_WIDE", 0.5)
    strange = strangers_of(bank, 150)
    found, truth = (neighbourhoods(FaissBank(shallow(bank), one), strange, depth=18) for one in (AUTO, FLAT))
    quality = compared(truth, found, depth=18)

    assert quality.recall >= 0.98
    assert quality.agreement >= 0.98


def test_who_is_found_at_a_glance_is_found(bank: StoredBank, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A deep search looks at a few cells first, and answers nearly all uploads as it would without.
    """
    uploads = Asked(asked(), [None] * 60)
    deep = replace(bank, manifest=bank.manifest.model_copy(update={"search": _depth(bank, 32)}))
    without, truth = (neighbourhoods(FaissBank(deep, one), uploads, depth=18) for one in (AUTO, FLAT))
    monkeypatch.setattr(faiss_cell_scan, "_LEAST_GLANCE", 1)
    found = neighbourhoods(FaissBank(deep, AUTO), uploads, depth=18)

    assert compared(without, found, depth=18).recall >= 0.995
    assert compared(truth, found, depth=18).agreement == 1.0


def test_companions_change_nothing_however_far_a_search_goes(bank: StoredBank) -> None:
    """
    Uploads that the nearest cells answer among strangers that need all of them, in another order, and each alone.
    """
    searched = FaissBank(shallow(bank), AUTO)
    queries = [*asked(), *strangers_of(bank, 60).embeddings]
    together = list(searched.nearest(queries, 18))
    order = np.random.default_rng(3).permutation(len(queries))
    turned = searched.nearest([queries[at] for at in order], 18)

    assert [together[at] for at in order] == list(turned)
    assert together == [searched.nearest([query], 18)[0] for query in queries]


def test_who_asks_for_more_than_was_tried_is_answered_exactly(bank: StoredBank) -> None:
    """
    A policy or a head with a larger k than the trial's, whatever the cells hold.
    """
    assert FaissBank(bank, AUTO).nearest(asked(), 200) == FaissBank(bank, FLAT).nearest(asked(), 200)


def test_who_lies_in_a_scene_needs_few_cells(bank: StoredBank) -> None:
    """
    Else every upload would cost what one of a thousand may.
    """
    queries = np.stack([one.vector for one in asked()])
    strange = np.stack([one.vector for one in strangers_of(bank, 60).embeddings])

    for label in bank.sizes:
        tried_one, narrow = (FaissBank(one, AUTO).shelves[label].index for one in (bank, shallow(bank)))
        assert isinstance(tried_one, CellScan)
        assert tried_one.unsure(queries, 34).mean() < 0.35
        assert narrow.unsure(strange, 34).mean() > 0.5


def test_a_dearer_depth_must_find_more(bank: StoredBank, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where none finds as much as is wished, but all as much as they must, the cheapest is taken, not the deepest.
    """
    monkeypatch.setattr(indexing, "ENOUGH", 1.0)
    tools = index_tools(AUTO)
    kept = np.flatnonzero(np.arange(len(bank.entries)) % 400)
    leaky = replace(tools, open_carried=lambda one: tools.open_exact(leave_out(replace(one, search=None), kept)))
    assert bank.search is not None
    record = tried(bank, bank.search, tools=leaky, sample=200)

    assert MIN_SEARCH_QUALITY <= min(record.recall, record.agreement) < 1
    assert (record.probes, record.pool) == indexing.DEPTHS[0]


def test_vectors_of_three_dimensions_have_no_index() -> None:
    """
    Nothing can be cut into parts there.
    """
    rows = np.eye(3, dtype=np.float16)

    with pytest.raises(ConfigInvalid, match="vectors have 3 dimensions, expected at least 4"):
        sort_into_cells(rows, np.arange(3, dtype=np.int64))


def test_a_small_label_has_no_index(bank: StoredBank) -> None:
    """
    Below what codes are trained on, exact search costs nothing.
    """
    with pytest.raises(ConfigInvalid, match="a label has 623 references, expected at least 624"):
        sort_into_cells(bank.vectors, np.arange(623, dtype=np.int64))


def test_flat_leaves_the_carried_index_alone(bank: StoredBank) -> None:
    """
    Whoever asks for exact search has it, whatever the bank carries.
    """
    assert not any(isinstance(shelf.index, CellScan) for shelf in FaissBank(bank, FLAT).shelves.values())
    assert all(isinstance(shelf.index, CellScan) for shelf in FaissBank(bank, AUTO).shelves.values())


def test_a_carried_index_that_misses_is_made_again(plain: Path) -> None:
    """
    What the graph and the lists are turned with does nothing for the cells that a bank carries.
    """

    class Forgetful(BruteForceBank):
        """
        Cells that lose the nearest half of everything.
        """

        @property
        def identity(self) -> BankIdentity:
            return replace(super().identity, index="cells(real=3/1*2)")

        def nearest(self, embeddings: Sequence[Embedding], k: int) -> Sequence[Neighbourhood]:
            found = super().nearest(embeddings, 2 * k)
            return [replace(one, nearest={label: n[k:] for label, n in one.nearest.items()}) for one in found]

    told = [str(one) for one in verify_bank(plain, open_bank=Forgetful).findings]

    assert len(told) == 2
    assert all("run `touchstone bank index` again, or set bank.index to flat" in one for one in told)
    assert not any("hnsw" in one for one in told)


def test_canaries_stay_with_the_bank(plain: Path) -> None:
    """
    They are of the same encoder and views; dropped without a word they would no longer guard what is activated.
    """
    manifest = read_manifest(plain)
    facts = ImageFacts(sha256="ab" * 32, byte_length=1, format="PNG", width=9, height=9)
    sighting = Sighting(asked()[0], facts, norm=1.0)
    write_canaries(plain, [Canary("a", REAL, sighting)], manifest)
    before = {name: (plain / name).read_bytes() for name in CANARY_FILES}
    made = index_bank(plain, plan=IndexPlan(sample=100), tools=index_tools(AUTO))

    assert {name: (plain / name).read_bytes() for name in CANARY_FILES} == before
    assert [one.name for one in read_canaries(plain, made.manifest)] == ["a"]
