"""
What the fits of both learnt projections share: a torch that leaves no trace, a reduced space, and held-out groups.

The losses are in ``contrastive_losses``; what is learnt with them in ``contrastive_traces`` and ``contrastive_style``.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from worker.fitting.folds import first_content
from worker.heads.features import Column, Mask, References, Rows

Floats = NDArray[np.float64]

HELD_OUT: Final = 0.2
"""At least this part of either label is held out where whole groups can make it up."""

FEWEST: Final = 4
"""A projection is learnt from at least so many references of either label."""

NO_DIFFERENCE: Final = 1e-9
"""A variance below this, of vectors of length 1 or in parts of the largest, is rounding."""

FADING: Final = 0.9
FADING_SQUARE: Final = 0.999
"""How much of the running mean of the gradient, and of its square, a step keeps."""


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """
    An affine map onto the strongest directions: ``(x - mean) @ basis``; ``mean`` float64[d], ``basis`` float64[d, q].
    """

    mean: Column = field(repr=False)
    basis: Floats = field(repr=False)

    def __call__(self, vectors: NDArray[Any]) -> Floats:
        """
        float64[n, q].
        """
        reduced: Floats = (vectors - self.mean) @ self.basis
        return reduced


class Descent:
    """
    Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), as ``torch.optim.AdamW`` with defaults.

    Torch's own loads its compiler when it is first made, several seconds of a fit that takes two.
    """

    def __init__(self, parameters: Iterable[Tensor], *, learning_rate: float, weight_decay: float = 0.0) -> None:
        self._parameters = list(parameters)
        self._rate, self._decay = learning_rate, weight_decay
        self._mean = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._square = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._taken = 0

    def step(self, loss: Tensor) -> None:
        """
        One step down this loss; a parameter that it does not depend on stays as it is.
        """
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        self._taken += 1
        faded, faded_square = 1 - FADING**self._taken, 1 - FADING_SQUARE**self._taken
        with torch.no_grad():
            for parameter, gradient, mean, square in zip(
                self._parameters, gradients, self._mean, self._square, strict=True
            ):
                if gradient is None:
                    continue
                mean.lerp_(gradient, 1 - FADING)
                square.lerp_(gradient.square(), 1 - FADING_SQUARE)
                parameter.mul_(1 - self._rate * self._decay)
                parameter.sub_(self._rate / faded * mean / ((square / faded_square).sqrt() + 1e-8))


@contextmanager
def quiet_torch(seed: int) -> Iterator[None]:
    """
    Torch with this seed on one thread, so that a fit is repeatable; generator and thread count are restored after.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def learnable(references: References, head: str, *, most: int, seed: int) -> References:
    """
    The references that a projection is learnt from: at most ``most`` of either label, drawn at random, in their order.

    Raises ValueError with fewer than ``FEWEST`` of a label.
    """
    positive = references.positive
    found = (int(positive.sum()), int((~positive).sum()))
    if min(found) < FEWEST:
        raise ValueError(
            f"{head} is learnt from at least {FEWEST} references of either label; "
            f"found {found[0]} of the positive label and {found[1]} others: add references or leave this head out"
        )
    if max(found) <= most:
        return references
    random = np.random.default_rng(seed)
    kept = [
        rows if len(rows) <= most else random.choice(rows, most, replace=False)
        for rows in (np.flatnonzero(positive), np.flatnonzero(~positive))
    ]
    return references.take(np.sort(np.concatenate(kept)))


def held_out(references: References, seed: int) -> Mask:
    """
    bool[n]: the groups on which a fit decides when to stop, so that it stops before it learns where pictures come from.

    A group is a source, or a generator where no source is known. Groups are drawn until ``HELD_OUT`` of either label is
    out; where whole groups cannot do that and leave half of either label, single pictures are drawn instead.
    """
    positive = references.positive
    groups = np.array([source or generator or "" for source, generator in _origins(references)])
    first = first_content(groups.tolist(), references.content)  # by contents: a name must not decide what is drawn
    random = np.random.default_rng(seed)
    out = np.zeros(len(references), dtype=bool)
    for group in random.permutation(sorted(first, key=first.__getitem__)):
        members = groups == group
        lacking = any(out[side].mean() < HELD_OUT and members[side].any() for side in (positive, ~positive))
        fits = all((out | members)[side].mean() <= 1 / 2 for side in (positive, ~positive))
        if lacking and fits:
            out |= members
    if all(out[side].any() for side in (positive, ~positive)):
        return out
    out[:] = False
    for side in (positive, ~positive):
        rows = np.flatnonzero(side)
        out[random.choice(rows, max(1, round(HELD_OUT * len(rows))), replace=False)] = True
    return out


def group_weights(references: References) -> Column:
    """
    float64[n], summing to 1 per label: how often a reference is drawn, so that a large source does not drown the small.

    A group of c references of a label is drawn in proportion to the square root of c.
    """
    keys = [
        (source, generator, bool(positive))
        for (source, generator), positive in zip(_origins(references), references.positive, strict=True)
    ]
    _, group, count = np.unique([repr(key) for key in keys], return_inverse=True, return_counts=True)
    weight = 1.0 / np.sqrt(count[group])
    for side in (references.positive, ~references.positive):
        weight[side] /= weight[side].sum()
    return np.asarray(weight, dtype=np.float64)


def whitened_directions(vectors: NDArray[Any], weights: Column, *, most: int, power: float) -> Reduction:
    """
    The principal directions of weighted vectors, each scaled by its variance to the power ``-power / 2``.

    ``power`` 0 leaves lengths as they are, 1 whitens. Half of the mean variance is added before, so that directions in
    which the references hardly vary are not blown up; the mean square of the result is brought to 1. Raises ValueError
    where the vectors, of length 1 or less, do not differ.
    """
    mean = weights @ vectors / weights.sum()
    centred = (vectors - mean) * np.sqrt(weights / weights.sum())[:, None]
    wide = centred.shape[0] < centred.shape[1]
    values, vectors_of = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    if values.max() < NO_DIFFERENCE:
        raise ValueError(f"{len(vectors)} references have all the same features: nothing can be learnt from them")
    order = np.argsort(values)[::-1][: min(most, len(vectors) - 1)]
    order = order[values[order] > NO_DIFFERENCE * values.max()]
    basis = vectors_of[:, order]
    if wide:
        basis = centred.T @ basis / np.sqrt(values[order])
    scaled = basis / (values[order] + values[order].mean() / 2) ** (power / 2)
    spread = np.sqrt((((vectors - mean) @ scaled) ** 2).mean())
    return Reduction(np.asarray(mean, dtype=np.float64), scaled / spread)


def spherical_means(
    unit: Tensor, count: int, random: np.random.Generator, *, rounds: int = 10
) -> tuple[Tensor, Tensor]:
    """
    Spherical k-means: ``count`` centres float[m, r] of length 1, and int64[n] which is nearest to each row.

    Starts from rows drawn at random; a centre that lost all its rows stays where it was.
    """
    centres = unit[np.sort(random.choice(len(unit), count, replace=False))]
    for _ in range(rounds):
        nearest = (unit @ centres.T).argmax(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, unit)
        lost = sums.norm(dim=1, keepdim=True) == 0
        centres = torch.where(lost, centres, normalize(sums))
    return centres, (unit @ centres.T).argmax(dim=1)


def auroc(score: Column, positive: Mask) -> float:
    """
    The chance that a positive scores above a negative, ties counted half.
    """
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    n_positive = int(positive.sum())
    wins = rank[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(wins / (n_positive * (len(positive) - n_positive)))


def rows_of(mask: Mask) -> Rows:
    """
    The places where a mask is set.
    """
    return np.flatnonzero(mask).astype(np.int64)


def _origins(references: References) -> list[tuple[str | None, str | None]]:
    return list(zip(references.source, references.generator, strict=True))
