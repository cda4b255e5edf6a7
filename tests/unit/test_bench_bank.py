"""
``touchstone bench bank``: what it measures and tells; that figures are right nobody can test.
"""

import json
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner

from tests.bank_builders import GENERATED, REAL, a_neighbourhood
from worker.adapters.faiss_bank import FaissBank
from worker.bank.search_quality import SearchQuality, compared
from worker.bench import bank_size
from worker.bench.clustered import clustered_bank, uploads
from worker.bench.measurement import Measured
from worker.cli.bench_bank import bank
from worker.domain import Embedding, Neighbourhood
from worker.stages.vote import soft_vote


def test_one_object_for_machines() -> None:
    """
    Each index with its cost per micro-batch, its share of what encoding was said to cost, and what it finds.
    """
    ran = CliRunner().invoke(
        bank, ["--sizes", "1000,2000", "--dim", "32", "--encode-ms", "1000", "--rounds", "1", "--json"]
    )
    told = json.loads(ran.stdout)
    first = told["banks"][0]["indexes"][0]

    assert [one["entries"] for one in told["banks"]] == [1000, 2000]
    assert set(first["cpu_ms"]) == set(first["wall_ms"]) == {"1", "16", "32", "64"}
    assert (first["identity"], first["recall"], first["equal_votes"]) == ("flat", 1.0, 1.0)
    assert first["share_of_encode"] == pytest.approx(first["cpu_ms"]["32"] / 1000, abs=1e-4)
    assert told["search_share_of_encode_1000"] == first["share_of_encode"]
    assert told["within_target_1000"] == (first["share_of_encode"] <= 0.05) == told["banks"][0]["within_target"]
    assert [one["name"] for one in told["targets"]] == [
        "search_share_of_encode, 1,000 references",
        "search_share_of_encode, 2,000 references",
    ]
    assert first["memory_bytes"] == 1000 * 32 * 4
    assert told["machine"]["cores"] >= 1


def test_large_banks_are_searched_through_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Beside exact search, whose answers they are compared with; encoding takes its turn in each round.
    """
    monkeypatch.setattr(bank_size, "CELLS_FROM", 2500)
    monkeypatch.setattr(bank_size, "_QUERIES", 192)
    encoded: list[int] = []
    found = bank_size.bank_cost(2500, 32, encode=lambda: encoded.append(1), rounds=2)
    cells = found.chosen

    assert cells.name == "cells"
    assert cells.identity.startswith("cells(real=")
    assert cells.quality is not None
    assert (cells.quality.recall >= 0.995, cells.quality.agreement >= 0.995, cells.quality.queries) == (
        True,
        True,
        384,
    )
    assert cells.strangers_cpu_ms.median >= 0
    assert (len(encoded) > 2, found.encode_cpu_ms >= 0) == (True, True)


@pytest.mark.parametrize(
    ("encode_ms", "recall", "within"), [(100.0, 0.996, True), (99.0, 0.996, False), (100.0, 0.994, False)]
)
def test_a_bank_is_within_its_targets_or_not(encode_ms: float, recall: float, within: bool) -> None:
    """
    At most a twentieth of encoding, and what is approximate finds 99.5 % and decides 99.5 % alike.
    """
    cost = {batch: Measured.of("search", "ms", [5.0]) for batch in bank_size.BATCHES}
    quality = SearchQuality(recall, 0.9951, 18, 1000)
    cells = bank_size.IndexCost("cells", "cells(...)", cost, cost, cost[32], 1.0, 1, quality=quality)
    exact = bank_size.IndexCost("exact", "flat", cost, cost, cost[32], 1.0, 1)
    found = bank_size.BankCost(10**6, [exact, cells], encode_ms)

    assert (found.chosen, found.within_target) == (cells, within)
    assert [target.name for target in found.targets] == [
        "search_share_of_encode, 1,000,000 references",
        "recall@18, 1,000,000 references",
        "equal_votes, 1,000,000 references",
    ]
    assert len(bank_size.BankCost(10**6, [exact], encode_ms).targets) == 1


def test_sizes_are_numbers() -> None:
    """
    Anything else is a usage error.
    """
    for sizes in ("many", "10", "1000,"):
        ran = CliRunner().invoke(bank, ["--sizes", sizes, "--encode-ms", "1"])

        assert ran.exit_code == 2


def test_banks_are_drawn_from_their_seed() -> None:
    """
    The same again, with near copies among them; uploads are near to what they are of.
    """
    (first, directions), (second, _) = clustered_bank(2000, 48), clustered_bank(2000, 48)
    cosines = first.vectors.astype(np.float32) @ first.vectors.astype(np.float32).T
    np.fill_diagonal(cosines, -1)
    nearest = [float((first.vectors.astype(np.float32) @ one.vector).max()) for one in uploads(first, directions, 90)]

    np.testing.assert_array_equal(first.vectors, second.vectors)
    assert first.sizes == {REAL: 1000, GENERATED: 1000}
    assert (cosines.max(axis=1) > 0.98).mean() > 0.1
    assert np.median(nearest) > 0.7


@pytest.mark.parametrize(
    ("real", "recall", "agreement"),
    [((0.9, 0.8, 0.7), 1.0, 1.0), ((0.9, 0.8), 2 / 3, 1.0), ((0.9, 0.8, 0.6), 2 / 3, 1.0), ((), 0.0, 0.0)],
)
def test_recall_counts_who_is_as_near(real: Sequence[float], recall: float, agreement: float) -> None:
    """
    The worst label's share of the true nearest, and whether the same is decided.
    """
    true = a_neighbourhood({"real": (0.9, 0.8, 0.7), "ai_generated": (0.56, 0.53, 0.52)})
    ours = a_neighbourhood({"real": real, "ai_generated": (0.56, 0.53, 0.52)}, {"real": 3, "ai_generated": 3})
    quality = compared([true], [ours], depth=3)

    assert quality.recall == pytest.approx(recall)
    assert agreement == quality.agreement
    assert (quality.depth, quality.queries) == (3, 1)


def test_abstaining_is_another_decision() -> None:
    """
    Where the same label weighs most, and only one of two neighbourhoods suffices to decide for it.
    """
    true = a_neighbourhood({"real": (0.9, 0.8, 0.7), "ai_generated": (0.56, 0.53, 0.52)})
    ours = a_neighbourhood({"real": (0.57,), "ai_generated": (0.56, 0.53, 0.52)}, {"real": 3, "ai_generated": 3})
    shares = [soft_vote(one, k=9, temperature=0.07).shares for one in (true, ours)]
    less = a_neighbourhood({"real": (0.9, 0.8, 0.7), "ai_generated": (0.89, 0.85, 0.8)})

    assert shares[0][REAL] > 0.5
    assert compared([true], [less], depth=3).agreement == 0.0
    assert compared([true], [true], depth=3).agreement == 1.0


def test_searches_take_fresh_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A search repeated with the same queries finds in the processor's cache what it read a moment before.
    """
    asked: dict[int, list[Embedding]] = {}
    kept: list[FaissBank] = []  # or another bank may be told by the number of one that is gone
    nearest = FaissBank.nearest

    def noted(self: FaissBank, embeddings: Sequence[Embedding], k: int) -> Sequence[Neighbourhood]:
        if len(embeddings) == 64:
            kept.append(self)
            asked.setdefault(id(self), []).append(embeddings[0])
        return nearest(self, embeddings, k)

    monkeypatch.setattr(FaissBank, "nearest", noted)
    bank_size.bank_cost(1000, 16, encode=1.0, rounds=3)
    following = [pair for of_bank in asked.values() for pair in pairwise(of_bank)]

    assert len(following) > 4
    assert all(first is not second for first, second in following)


def test_nothing_compared_is_no_quality() -> None:
    """
    An index must not pass because nobody was asked.
    """
    with pytest.raises(ValueError, match="no query was asked"):
        compared([], [], depth=3)
