"""
Labelled features from plain numbers, and cheap heads, for tests of what is made of heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from tests.bank_builders import sha
from worker.fitting.fit import FitPlan
from worker.fitting.heads_table import RECIPES, Recipe
from worker.heads.features import FeatureTable, References
from worker.heads.head import Head, HeadState, Readings
from worker.heads.reference_bank import ReferenceBank
from worker.judgement.store import HEADS, Restore

DIM = 8


@dataclass(frozen=True, slots=True, eq=False)
class Lean:
    """
    A head in one line: the product with the difference of the two labels' means, turned by ``sign``.
    """

    name: ClassVar[str] = "lean"
    version: ClassVar[str] = "1"

    weight: NDArray[np.float64] = field(repr=False)
    sign: float = 1.0

    def read(self, features: FeatureTable, bank: ReferenceBank) -> Readings:
        """
        The product.
        """
        return Readings(self.sign * (features.unit * self.weight).sum(axis=1))

    def state(self) -> HeadState:
        """
        The weights and the sign.
        """
        return HeadState({"weight": self.weight}, {"sign": self.sign})

    @classmethod
    def restored(cls, state: HeadState) -> Self:
        """
        The head of a state.
        """
        return cls(np.asarray(state.tensors["weight"], np.float64), state.settings["sign"])


class Noise(Lean):
    """
    A head that says something, but not of the label.
    """

    name: ClassVar[str] = "noise"


def fit_lean(references: References, seed: int) -> Lean:
    """
    The difference of means.
    """
    unit, positive = references.features.unit.astype(np.float64), references.positive
    return Lean(unit[positive].mean(axis=0) - unit[~positive].mean(axis=0))


def fit_turned(references: References, seed: int) -> Head:
    """
    The same head, claiming the opposite.
    """
    return Lean(fit_lean(references, seed).weight, -1.0)


def fit_noise(references: References, seed: int) -> Head:
    """
    One fixed direction across that of the labels.
    """
    weight = np.zeros(DIM)
    weight[-1] = 1.0
    return Noise(weight)


class Mute(Lean):
    """
    A head that never says anything.
    """

    name: ClassVar[str] = "mute"

    def read(self, features: FeatureTable, bank: ReferenceBank) -> Readings:
        """
        Nothing.
        """
        return Readings(np.full(len(features), np.nan))


LEAN = Recipe("lean", ("global",), fit_lean)
TURNED = Recipe("lean", ("global",), fit_turned)
NOISE = Recipe("noise", ("global",), fit_noise)
MUTE = Recipe("mute", ("global",), lambda _references, _seed: Mute(np.zeros(DIM)))
KNN, PERTURBATION, REALISM = (
    next(recipe for recipe in RECIPES if recipe.name == name) for name in ("knn", "perturbation", "realism")
)
CHEAP = FitPlan(recipes=(KNN, LEAN, NOISE, PERTURBATION, REALISM))
KNOWN: dict[str, Restore] = {**HEADS, "lean": Lean.restored, "noise": Noise.restored}


def some_references(
    seed: int = 0,
    *,
    generators: int = 6,
    sources: int = 5,
    each: int = 60,
    apart: float = 0.6,
    shift: bool = True,
) -> References:
    """
    ``each`` pictures per generator and per source of reals in eight dimensions, labels ``apart`` along the first.

    Every generator and source lies somewhere of its own in the others. With ``shift`` the perturbation tells, too.
    """
    rng = np.random.default_rng(seed)
    groups = [(True, number) for number in range(generators)] + [(False, number) for number in range(sources)]
    rows = []
    for held, _ in groups:
        centre = np.concatenate([[apart / 2 if held else -apart / 2], rng.normal(scale=0.3, size=DIM - 1)])
        rows.append(centre + rng.normal(scale=0.5, size=(each, DIM)))
    positive = np.repeat([held for held, _ in groups], each)
    names = [name for held, number in groups for name in [f"mill-{number}" if held else None] * each]
    places = [place for held, number in groups for place in ["web" if held else f"camera-{number}"] * each]
    table = table_of(np.concatenate(rows), rng)
    if shift:
        table.shift[:] = np.exp(rng.normal(size=(len(positive), 3)) + 0.7 * positive[:, None] - 3)
    content = tuple(sha(f"{seed} {row}") for row in range(len(positive)))
    return References(table, positive, tuple(names), tuple(places), content)


def table_of(
    rows: NDArray[np.float64], rng: np.random.Generator, formats: Sequence[str] = ("JPEG", "PNG")
) -> FeatureTable:
    """
    These vectors, brought to length 1, without crops, statistics or perturbed copies.
    """
    n = len(rows)
    norm = np.linalg.norm(rows, axis=1)
    return FeatureTable(
        unit=(rows / norm[:, None]).astype(np.float32),
        norm=norm,
        native=np.empty((0, rows.shape[1]), np.float32),
        native_owner=np.empty(0, np.int64),
        realism=np.full((n, 5), np.nan),
        shift=np.full((n, 3), np.nan),
        format=tuple(rng.choice(formats, size=n).tolist()),
        short_side_px=rng.choice([300.0, 800.0, 2000.0], size=n),
    )
