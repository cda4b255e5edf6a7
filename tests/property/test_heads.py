"""
What holds of every closed-form head: its state brings it back, and a picture's companions do not change its reading.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.head_worlds import a_world, references_of
from worker.fitting.plain import fit_global_local, fit_knn, fit_perturbation, fit_realism
from worker.fitting.probe import fit_probe
from worker.fitting.real_only import fit_real_only
from worker.heads.features import FeatureTable, References
from worker.heads.global_local import GlobalLocal
from worker.heads.head import Head, HeadState, Readings
from worker.heads.knn import Knn
from worker.heads.perturbation import Perturbation
from worker.heads.probe import LegacyProbe, Probe
from worker.heads.real_only import RealOnly
from worker.heads.realism import Realism
from worker.heads.reference_bank import ExactBank

BANK = a_world(0, 90)
EXACT = ExactBank(BANK)
ASKED = a_world(1, 40).features


def a_legacy_probe(references: References, *, seed: int) -> LegacyProbe:
    """
    A published probe of these dimensions.
    """
    weight = np.random.default_rng(seed).normal(size=references.features.dim)
    return LegacyProbe(weight=weight, bias=-0.5, sha256="ab" * 32)


FITTERS: dict[type[Any], Callable[..., Head]] = {
    Knn: fit_knn,
    Probe: fit_probe,
    LegacyProbe: a_legacy_probe,
    RealOnly: fit_real_only,
    Perturbation: fit_perturbation,
    GlobalLocal: fit_global_local,
    Realism: fit_realism,
}
HEADS = {kind: fitter(BANK, seed=0) for kind, fitter in FITTERS.items()}
EVERY_HEAD = pytest.mark.parametrize("kind", FITTERS, ids=lambda kind: kind.__name__)


def columns(readings: Readings) -> dict[str, np.ndarray]:
    """
    The score and all parts.
    """
    return {"score": readings.score, **readings.parts}


def all_nan(table: FeatureTable) -> FeatureTable:
    """
    The table as if only embeddings had been measured, and no crop cut.
    """
    n, dim = table.unit.shape
    return FeatureTable(
        unit=table.unit,
        norm=np.full(n, np.nan),
        native=np.empty((0, dim), np.float32),
        native_owner=np.empty(0, np.int64),
        realism=np.full_like(table.realism, np.nan),
        shift=np.full_like(table.shift, np.nan),
        format=table.format,
        short_side_px=table.short_side_px,
    )


@EVERY_HEAD
def test_a_head_comes_back_from_its_state(kind: type[Any]) -> None:
    """
    Tensors as arrays and settings through JSON bring back a head that reads the same, to the last bit.
    """
    head = HEADS[kind]
    state = head.state()
    written = HeadState(
        {name: tensor.copy() for name, tensor in state.tensors.items()}, json.loads(json.dumps(dict(state.settings)))
    )
    restored: Head = kind.restored(written)
    expected, found = columns(head.read(ASKED, EXACT)), columns(restored.read(ASKED, EXACT))

    assert (head.name, head.version) == (restored.name, restored.version)
    assert expected.keys() == found.keys()
    for name, column in expected.items():
        np.testing.assert_array_equal(column, found[name])


@EVERY_HEAD
@given(rows=st.lists(st.integers(0, len(ASKED) - 1), max_size=50))
@settings(max_examples=25)
def test_companions_do_not_change_a_reading(kind: type[Any], rows: list[int]) -> None:
    """
    In any company, in any order, several times or in none at all, a picture's numbers are those it has among all.
    """
    head = HEADS[kind]
    among_all = columns(head.read(ASKED, EXACT))
    found = columns(head.read(ASKED.take(rows), EXACT))

    for name, column in found.items():
        assert column.shape == (len(rows),)
        assert column.dtype == np.float64
        np.testing.assert_allclose(among_all[name][rows], column, atol=1e-6, rtol=1e-6)


@EVERY_HEAD
def test_equal_references_do_not_make_company_matter(kind: type[Any]) -> None:
    """
    With every reference three times in the bank ties are everywhere, and the rounding of a product breaks none.
    """
    tripled = BANK.take([row for row in range(len(BANK)) for _ in range(3)])
    bank, head = ExactBank(tripled), HEADS[kind]
    among_all = head.read(ASKED, bank).score
    alone = [head.read(ASKED.take([row]), bank).score[0] for row in range(len(ASKED))]

    np.testing.assert_allclose(among_all, alone, atol=1e-5, rtol=1e-5)


@EVERY_HEAD
def test_what_was_not_measured_is_nan_and_no_error(kind: type[Any]) -> None:
    """
    Heads that need only the global view still say what they said; the others say NaN of every picture.
    """
    read = HEADS[kind].read(all_nan(ASKED), EXACT)
    says = np.isfinite(read.score)

    assert says.all() if kind in {Knn, Probe, RealOnly} else not says.any()


@EVERY_HEAD
def test_fitting_twice_gives_one_head(kind: type[Any]) -> None:
    """
    The same references and seed give the same state, bit for bit.
    """
    state, again = HEADS[kind].state(), FITTERS[kind](BANK, seed=0).state()

    assert state.settings == again.settings
    for name, tensor in state.tensors.items():
        np.testing.assert_array_equal(tensor, again.tensors[name])


@pytest.mark.parametrize(
    "kind", [Knn, Probe, GlobalLocal, RealOnly, Perturbation, Realism], ids=lambda one: one.__name__
)
def test_heads_fit_on_references_with_nothing_but_embeddings(kind: type[Any]) -> None:
    """
    A bank of one view, without statistics or perturbed copies, fits every head; what cannot say says NaN.
    """
    plain = references_of(all_nan(BANK.features), BANK.positive)
    read = FITTERS[kind](plain, seed=0).read(ASKED, ExactBank(plain))

    assert read.score.shape == (len(ASKED),)
    assert np.isfinite(read.score).all() == (kind in {Knn, Probe, RealOnly})
