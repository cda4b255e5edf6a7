"""
``touchstone bank index`` and what comes of it: an index that a bank carries, tried, checked, and searched.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from tests.bank_builders import (
    GENERATED,
    REAL,
    a_source,
    a_stored_bank,
    add_to_small,
    build_small,
    write_pictures,
)
from tests.cli_bank_rig import bank_command
from tests.command_line import Touchstone
from worker.adapters.faiss_bank import FaissBank
from worker.adapters.faiss_cells import make_cells
from worker.adapters.faiss_indexing import index_tools
from worker.bank import indexing
from worker.bank.files import StoredBank, load_bank, read_manifest, sha256_of, write_contents, write_manifest
from worker.bank.indexing import IndexPlan, IndexTooPoor, index_bank
from worker.bank.leaving_out import Without, leave_out
from worker.bank.manifest import SEARCH, SearchRecord, canonical_bytes
from worker.bank.release import with_judgement
from worker.bank.search_cells import LabelCells, SearchCells, code_parts, code_width, write_cells
from worker.bank.search_quality import Asked, compared, neighbourhoods
from worker.bank.survey import no_progress
from worker.domain import Embedding
from worker.errors import BankInvalid
from worker.settings.tree import BankSettings

AUTO, FLAT = BankSettings(), BankSettings(index="flat")
DIM = 24


def scenes(count: int, seed: int) -> NDArray[np.float64]:
    """
    Vectors in scenes of some twenty, as near to each other as pictures of one thing are.
    """
    rng = np.random.default_rng(seed)
    places = np.random.default_rng(1).normal(size=(200, DIM))
    found: NDArray[np.float64] = places[rng.integers(0, 200, count)] + 0.3 * rng.normal(size=(count, DIM))
    return found


@pytest.fixture(scope="module")
def stored() -> StoredBank:
    """
    A bank of 1200 real and 800 generated references.
    """
    return a_stored_bank({"real": scenes(1200, 2), "ai_generated": scenes(800, 3)})


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, stored: StoredBank) -> Path:
    """
    The bank on disk, without an index.
    """
    folder = tmp_path_factory.mktemp("plain") / "bank"
    folder.mkdir()
    entries = list(stored.entries)
    sums = write_contents(folder, entries, stored=stored.stored, probe=stored.probe, probe_png=b"png")
    write_manifest(folder, stored.manifest.model_copy(update={"checksums": sums}))
    return folder


@pytest.fixture(scope="module")
def bank(plain: Path) -> StoredBank:
    """
    The bank with an index, beside the one without.
    """
    return index_bank(plain, plan=IndexPlan(sample=200, out=plain.with_name("indexed")), tools=index_tools(AUTO))


@pytest.fixture
def path(bank: StoredBank, plain: Path, tmp_path: Path) -> Path:
    """
    A copy of the indexed bank, to be changed.
    """
    assert bank.search is not None
    shutil.copytree(plain.with_name("indexed"), tmp_path / "bank")
    return tmp_path / "bank"


def asked(count: int = 60) -> list[Embedding]:
    """
    Uploads of the same scenes.
    """
    return [Embedding.from_features(row.astype(np.float32)) for row in scenes(count, 9)]


def test_the_index_is_released_with_the_bank(bank: StoredBank) -> None:
    """
    Under the next version, with what it was found to do; what it finds of uploads is nearly all, with exact similarity.
    """
    searched, exact = FaissBank(bank, AUTO), FaissBank(bank, FLAT)
    queries = Asked(asked(), [None] * 60)
    found, truth = (neighbourhoods(one, queries, depth=12) for one in (searched, exact))
    quality = compared(truth, found, depth=12)
    true = {n.entry.id: n.similarity for one in exact.nearest(asked(), 800)[:1] for n in one.nearest[GENERATED]}
    record = bank.manifest.search

    assert record is not None
    assert (bank.manifest.version, record.queries, set(record.cells)) == ("2", 200, {REAL, GENERATED})
    assert min(record.recall, record.agreement) >= 0.995
    assert searched.identity.index.startswith(f"cells(real={record.cells[REAL]}/")
    assert exact.identity.index == "flat"
    assert min(quality.recall, quality.agreement) >= 0.98
    assert all(true[n.entry.id] == n.similarity for n in found[0].nearest[GENERATED])


def test_companions_change_nothing(bank: StoredBank) -> None:
    """
    Alone or among sixty, what the carried index finds is equal.
    """
    searched = FaissBank(bank, AUTO)

    assert list(searched.nearest(asked(), 9)) == [searched.nearest([query], 9)[0] for query in asked()]


def test_two_loads_find_the_same(path: Path) -> None:
    """
    The index is read, not made again.
    """
    first, second = (FaissBank(load_bank(path), AUTO) for _ in range(2))

    assert first.nearest(asked(), 9) == second.nearest(asked(), 9)


def test_cells_are_made_the_same_each_time(stored: StoredBank, bank: StoredBank) -> None:
    """
    The same references give the same cells and codes.
    """
    again = make_cells(stored, no_progress)

    assert bank.search is not None
    np.testing.assert_array_equal(bank.search.cell, again.cell)
    np.testing.assert_array_equal(bank.search.codes, again.codes)


def test_who_is_left_out_is_not_found(bank: StoredBank) -> None:
    """
    Disabled references leave the index without its being made anew, and the others stay.
    """
    nearest = FaissBank(bank, AUTO).nearest(asked(), 3)
    gone = frozenset([n.entry.id for one in nearest for n in one.nearest[REAL]][:8])
    smaller = leave_out(bank, Without(entries=gone).kept_rows(bank.entries))
    searched = FaissBank(smaller, AUTO)
    found = searched.nearest(asked(), 3)

    assert {n.entry.id for one in found for n in one.nearest[REAL]} & gone == set()
    assert [one.nearest[GENERATED] for one in found] == [one.nearest[GENERATED] for one in nearest]
    assert searched.identity.index.startswith("cells(")
    assert f" without {smaller.without}" in searched.identity.index


def test_a_new_judgement_keeps_the_index(path: Path) -> None:
    """
    Fitting changes no vector: the index is of the same references still.
    """

    class Fitted:
        """
        A judgement as far as the bank knows it.
        """

        files = {"judgement.json": b"{}", "heads.safetensors": b"-"}  # noqa: RUF012 - one for this test
        id = "ab" * 32
        version = "1"

    before = read_manifest(path).search
    with_judgement(path, Fitted())
    fitted = load_bank(path)
    again = index_bank(path, plan=IndexPlan(sample=200), tools=index_tools(AUTO)).manifest

    assert before is not None
    assert (fitted.manifest.search, fitted.search is not None) == (before, True)
    assert (again.version, again.search, again.judgement) == ("4", before, fitted.manifest.judgement)


def test_without_an_index_a_manifest_is_as_before(plain: Path) -> None:
    """
    Hashes of banks that were made before there was any index stay what they were.
    """
    manifest = read_manifest(plain)

    assert b'"search"' not in canonical_bytes(manifest)
    assert SEARCH not in manifest.file_checksums


def test_an_index_that_finds_too_little_is_none(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    A bank of which the deepest search finds too little is what it was.
    """
    before = (path / "manifest.json").read_bytes()
    monkeypatch.setattr(indexing, "DEPTHS", ((1, 1),))
    tools = index_tools(AUTO)
    half = replace(tools, open_carried=lambda one: tools.open_exact(leave_out(one, np.arange(0, 2000, 2))))
    with pytest.raises(IndexTooPoor, match=r"expected 0.995 of each; nothing was changed") as refused:
        index_bank(path, plan=IndexPlan(sample=100), tools=half)

    assert refused.value.exit_code == 1
    assert (path / "manifest.json").read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["bank"]


@pytest.mark.parametrize(("name", "value"), [("recall", 0.99), ("agreement", 0.9949), ("cells", {"real": 3})])
def test_a_poor_record_is_refused(bank: StoredBank, name: str, value: object) -> None:
    """
    Who writes less than 0.995 into a manifest, or cells of other labels, has written no manifest.
    """
    manifest = bank.manifest
    value_of = manifest.model_dump(mode="json")
    value_of["search"][name] = value

    with pytest.raises(ValidationError, match=name):
        type(manifest).model_validate(value_of)


def test_a_flipped_bit_is_refused(path: Path) -> None:
    """
    As in every other file of a bank.
    """
    file = path / SEARCH
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.unlink()  # it may be linked from another release
    file.write_bytes(data)

    with pytest.raises(BankInvalid, match=r"search.safetensors has sha256 \w+, expected"):
        load_bank(path)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda one: replace(one, cell=one.cell + 1), "cell of real is not between 0 and"),
        (lambda one: replace(one, cell=one.cell - 1), "cell of real is not between 0 and"),
        (lambda one: replace(one, cell=one.cell[1:]), r"cell is int32\[1999\], expected int32\[2000\]"),
        (lambda one: replace(one, codes=one.codes[:, 1:]), r"codes is uint8\[2000, 5\], expected uint8\[2000, 6\]"),
        (
            lambda one: replace(
                one, labels={**one.labels, REAL: replace(one.labels[REAL], centres=one.labels[REAL].centres * np.nan)}
            ),
            "centres.real holds a number that is not finite",
        ),
    ],
)
def test_impossible_numbers_are_refused(
    bank: StoredBank, path: Path, broken: Callable[[SearchCells], SearchCells], message: str
) -> None:
    """
    Though the manifest vouches for the file: FAISS would read beyond its arrays.
    """
    record = bank.manifest.search
    assert bank.search is not None
    assert record is not None
    (path / SEARCH).unlink()
    write_cells(path, broken(bank.search))
    told = record.model_copy(update={"files": {SEARCH: sha256_of(path / SEARCH)}})
    write_manifest(path, bank.manifest.model_copy(update={"search": told}))

    with pytest.raises(BankInvalid, match=message):
        load_bank(path)


def test_adding_drops_the_index(tmp_path: Path) -> None:
    """
    It does not have the new references; the report says so, and no file of it is left.
    """
    small = tmp_path / "bank"
    built = build_small(a_source(tmp_path / "source"), small).bank
    dim, count = built.manifest.encoder.dim, len(built.entries)
    width, parts = code_width(dim), code_parts(dim)
    of_label = LabelCells(
        np.zeros((dim, width), np.float32), np.zeros((1, width), np.float32), np.zeros((parts, 16, 2), np.float32)
    )
    codes = np.zeros((count, parts // 2), np.uint8)
    write_cells(small, SearchCells(np.zeros(count, np.int32), codes, dict.fromkeys(built.sizes, of_label)))
    record = SearchRecord(
        cells=dict.fromkeys(built.sizes, 1),
        probes=1,
        pool=1,
        recall=1.0,
        agreement=1.0,
        depth=1,
        queries=1,
        built_with="a test",
        files={SEARCH: sha256_of(small / SEARCH)},
    )
    write_manifest(small, built.manifest.model_copy(update={"search": record}))
    indexed = load_bank(small)
    write_pictures(tmp_path / "more", "fake/new/a.png", first_seed=900)
    report = add_to_small(small, tmp_path / "more")

    assert indexed.search is not None
    assert report.index_dropped
    assert (load_bank(small).search, (small / SEARCH).exists()) == (None, False)


def test_the_command_says_what_it_did(
    plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """
    For people and for machines; where something lies already it is not replaced unasked.
    """
    touchstone: Touchstone = bank_command(monkeypatch, capsys, tmp_path)
    said = touchstone("index", plain, "--sample", "200", "--out", "indexed", "--json")
    again = touchstone("index", plain, "--sample", "200", "--out", "indexed")
    people = touchstone("index", plain, "--sample", "200", "--out", "indexed", "--replace")

    assert (said.code, said.json["version"], said.json["search"]["queries"]) == (0, "2", 200)
    assert again.code == 3
    assert "bank in-memory 2 at indexed carries an index of" in people.out
    assert read_manifest(plain).search is None
