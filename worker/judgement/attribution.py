"""
Which generator the neighbours point to, and when to leave that open. Open-set: a stranger is named ``None``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.assessment import Attribution
from worker.heads.features import Column, References
from worker.heads.reference_bank import ABSENT, Nearest

REAL: Final = "real"
"""Name of everything that is not of the positive label."""

UNNAMED: Final = "unnamed"
"""Name of positive references whose generator nobody wrote down."""

NEIGHBOURS: Final = 50
"""Of both classes together; enough that a generator of a tenth of the bank is heard among many reals."""

Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Attributor:
    """
    The generators of a bank, and when a picture is said to be of one.

    ``names``: what the codes mean, ``REAL`` first. ``code`` int64[n]: per reference of the bank, in the bank's order.
    ``neighbours``: how many of the union of both classes are asked, weighted with exp(similarity / ``temperature``).
    A generator is named when its probability is at least ``threshold`` and the coverage p at least ``min_coverage_p``.
    """

    names: tuple[str, ...]
    code: Codes = field(repr=False)
    neighbours: int = NEIGHBOURS
    temperature: float = 0.07
    threshold: float = 0.5
    min_coverage_p: float = 0.01

    def posterior(self, nearest: Nearest) -> NDArray[np.float64]:
        """
        float64[n, g], rows sum to 1: p(g|x) = sum over neighbours of g of exp(s/T) / N_g, over the same of all.
        """
        similarity = np.concatenate([nearest.positive.similarity, nearest.negative.similarity], axis=1)
        rows = np.concatenate([nearest.positive.rows, nearest.negative.rows], axis=1)
        first = np.argsort(-similarity, axis=1, kind="stable")[:, : self.neighbours]
        rows = np.take_along_axis(rows, first, axis=1)
        near = np.take_along_axis(similarity, first, axis=1).astype(np.float64)
        # Against the nearest of all, so that nothing underflows; it cancels.
        weight = np.where(rows == ABSENT, 0.0, np.exp((near - near[:, :1]) / self.temperature))
        of = self.code[np.maximum(rows, 0)]
        held = np.maximum(np.bincount(self.code, minlength=len(self.names)), 1)
        mass = np.stack([(weight * (of == g)).sum(axis=1) / held[g] for g in range(len(self.names))], axis=1)
        total = mass.sum(axis=1, keepdims=True)
        posterior: NDArray[np.float64] = np.divide(
            mass, total, out=np.full_like(mass, 1 / len(self.names)), where=total > 0
        )
        return posterior

    def attributions(self, nearest: Nearest, coverage_p: Column) -> list[Attribution]:
        """
        For each picture the generator that its neighbours point to, or None.
        """
        posterior = self.posterior(nearest)
        return [self._attribution(row, float(p)) for row, p in zip(posterior, coverage_p, strict=True)]

    def _attribution(self, posterior: NDArray[np.float64], coverage_p: float) -> Attribution:
        by_name: Mapping[str, float] = {name: float(p) for name, p in zip(self.names, posterior, strict=True)}
        # The best generator, also where the neighbours say real: whether it is generated is not decided here.
        generators = [name for name in self.names if name not in {REAL, UNNAMED}]
        best = max(generators, key=by_name.__getitem__, default=None)
        if best is None:
            return Attribution(generator=None, probability=0.0, posterior=by_name)
        sure = by_name[best] >= self.threshold and coverage_p >= self.min_coverage_p
        return Attribution(best if sure else None, by_name[best], by_name)


def generator_codes(references: References) -> tuple[tuple[str, ...], Codes]:
    """
    The names that occur, ``REAL`` first, and the code of each reference.

    A generator that is itself called ``real`` or ``unnamed`` is told apart as ``generator real``.
    """
    named = [
        REAL if not positive else UNNAMED if not generator else _distinct(generator)
        for positive, generator in zip(references.positive, references.generator, strict=True)
    ]
    names = (REAL, *sorted(set(named) - {REAL}))
    codes = {name: number for number, name in enumerate(names)}
    return names, np.asarray([codes[name] for name in named], dtype=np.int64)


def _distinct(generator: str) -> str:
    return f"generator {generator}" if generator in {REAL, UNNAMED} else generator
