"""
Learning ``style``: a linear projection in which references lie near others of their label, whatever they show.

The loss is in ``contrastive_losses``; what the head does with the projection is ``worker/heads/style.py``.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch.nn.functional import dropout, normalize

from worker.fitting.contrastive_losses import supervised_contrastive_loss
from worker.fitting.contrastive_training import (
    Descent,
    Floats,
    Reduction,
    auroc,
    group_weights,
    held_out,
    learnable,
    quiet_torch,
    rows_of,
    spherical_means,
    whitened_directions,
)
from worker.heads.features import Column, References, Rows
from worker.heads.reference_bank import ExactBank, Projection
from worker.heads.style import Style, projection_of

MOST_OF_A_LABEL: Final = 4000

MOST_CONTENTS: Final = 64
"""At most so many clusters stand for contents, and at most one for every eight references."""

CONTENT_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class StyleTraining:
    """
    How the projection is learnt. The defaults suit hundreds to thousands of references.

    ``directions``: of the encoder's space, so many of the widest are looked at. ``kept``: dimensions of the style
    space. ``background``: how far the directions beyond those that part groups are turned down at the start, so that
    content weighs little. ``anchoring``: weight of the squared distance of the map from where it started.
    """

    directions: int = 128
    kept: int = 32
    background: float = 0.3
    dropout: float = 0.3
    noise: float = 0.3
    learning_rate: float = 2e-3
    anchoring: float = 1.0
    batch: int = 128
    steps: int = 120
    check_every: int = 10
    patience: int = 4
    contrast: float = 0.1
    k: int = 9
    temperatures: tuple[float, ...] = (0.07, 0.15, 0.3)


def fit_style(references: References, *, seed: int, training: StyleTraining = StyleTraining()) -> Style:
    """
    Learn the head from references of both labels, in seconds on one core; the same for the same seed on one machine.

    A first run on all but the held-out groups finds how many steps help there, and at which temperature the vote among
    the rest does best on them; a second run on all references takes so many steps. Beyond ``MOST_OF_A_LABEL`` of a
    label a random part is learnt from. Raises ValueError with too few references of a label.
    """
    known = learnable(references, "style", most=MOST_OF_A_LABEL, seed=seed)
    out = held_out(known, seed)
    with quiet_torch(seed):
        steps, temperature = _best(known, rows_of(~out), rows_of(out), training, seed)
        run = _Run(known, training, seed)
        run.take(steps)
    return Style(run.projection(), training.k, temperature)


class _Run:
    """
    One training on these references, step by step.
    """

    def __init__(self, known: References, training: StyleTraining, seed: int) -> None:
        self.training = training
        self.random = np.random.default_rng(seed)
        self.weights = group_weights(known)
        self.sides = (rows_of(known.positive), rows_of(~known.positive))
        self.without_content = content_removal(known, self.weights, self.random, most=training.directions)
        whitened = self.without_content(known.features.unit)
        self.inputs = torch.from_numpy(whitened.astype(np.float32))
        self.labels = torch.from_numpy(known.positive)
        start = group_directions(whitened, known, kept=training.kept, background=training.background)
        self.start = torch.from_numpy(start.astype(np.float32))
        self.matrix = self.start.clone().requires_grad_()
        self.descent = Descent([self.matrix], learning_rate=training.learning_rate)

    def take(self, steps: int) -> None:
        """
        So many steps of supervised contrast, away from the start as little as that needs.
        """
        training = self.training
        for _ in range(steps):
            rows = self._draw()
            seen = self.inputs[rows]
            seen = dropout(seen + training.noise * torch.randn_like(seen), training.dropout)
            away = (self.matrix - self.start).square().sum() / self.start.square().sum()
            contrast = supervised_contrastive_loss(
                normalize(seen @ self.matrix), self.labels[rows], temperature=training.contrast
            )
            self.descent.step(contrast + training.anchoring * away)

    def projection(self) -> Projection:
        """
        Content removal and the learnt map, as one map.
        """
        learnt = self.matrix.detach().numpy().astype(np.float64)
        return projection_of(self.without_content.mean, self.without_content.basis @ learnt)

    def _draw(self) -> Rows:
        drawn = []
        for rows in self.sides:
            weight = self.weights[rows]
            size = min(self.training.batch // 2, len(rows))
            drawn.append(self.random.choice(rows, size, replace=False, p=weight / weight.sum()))
        return np.concatenate(drawn)


def content_removal(known: References, weights: Column, random: np.random.Generator, *, most: int) -> Reduction:
    """
    ``u = (h - mu) Sigma_w^(-1/2)`` on the widest directions within a label, without those that part contents.

    There are no matched pairs to tell content by, so that pictures of one content are taken to be those that lie
    together: clusters of the references, each label's mean taken away. A direction in which more than
    ``CONTENT_SHARE`` of the variance within a label lies between clusters is removed, at most half of all.

    Known hole: what makes pictures of one label lie together beside their content, such as one generator's or one
    source's strong trace, is removed with it.
    """
    unit = known.features.unit.astype(np.float64)
    within = unit.copy()
    means = []
    for side in (known.positive, ~known.positive):
        means.append(weights[side] @ unit[side])
        within[side] -= means[-1]
    reduction = whitened_directions(within, weights, most=most, power=1.0)
    count = min(MOST_CONTENTS, len(known) // 8)
    if count < 2:  # noqa: PLR2004 - one cluster parts nothing
        return Reduction(np.mean(means, axis=0), reduction.basis)
    directions = torch.from_numpy(within.astype(np.float32))
    nearest = spherical_means(torch.nn.functional.normalize(directions), count, random)[1].numpy()
    kept = _between_removed(reduction(within), nearest)
    return Reduction(np.mean(means, axis=0), reduction.basis @ kept)


def _between_removed(vectors: Floats, cluster: Rows) -> Floats:
    """
    The map float64[q, q] that takes away the directions in which clusters lie apart.

    With the total covariance whitened, the covariance between clusters has each direction's share as eigenvalue.
    """
    centred = vectors - vectors.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    root = np.sqrt(np.maximum(values, 1e-9 * values.max()))
    white = centred @ axes / root
    centres = np.stack([white[cluster == each].mean(axis=0) for each in np.unique(cluster)])
    members = np.unique(cluster, return_counts=True)[1] / len(cluster)
    share, apart = np.linalg.eigh(centres.T @ (centres * members[:, None]))
    parting = apart[:, np.argsort(share)[::-1][: min(int((share > CONTENT_SHARE).sum()), len(share) // 2)]]
    removed: Floats = (axes / root) @ parting @ parting.T @ (axes * root).T
    return np.eye(len(values)) - removed


def group_directions(whitened: Floats, known: References, *, kept: int, background: float) -> Floats:
    """
    Where the map starts, float64[q, r]: what parts the labels, what parts each generator from the reals, then the rest.

    Directions are orthonormal; those after the first are turned down to ``background``.
    """
    reals = whitened[~known.positive].mean(axis=0)
    makers = np.array([generator or "" for generator in known.generator])
    apart = [whitened[known.positive].mean(axis=0) - reals]
    for maker in np.unique(makers[known.positive]):
        members = known.positive & (makers == maker)
        apart.append((whitened[members].mean(axis=0) - reals) * np.sqrt(members.sum() / known.positive.sum()))
    wide = np.linalg.svd(np.stack(apart[1:]), full_matrices=False)[2]
    found, _ = np.linalg.qr(np.vstack([apart[0], wide, np.eye(whitened.shape[1])]).T)
    found = found[:, : min(kept, whitened.shape[1])]
    return np.hstack([found[:, :1], background * found[:, 1:]])


def _best(known: References, learnt: Rows, judged: Rows, training: StyleTraining, seed: int) -> tuple[int, float]:
    part, kept_out = known.take(learnt), known.take(judged)
    run, bank = _Run(part, training, seed), ExactBank(part)
    best, found, since = -1.0, (0, training.temperatures[-1]), 0
    for steps in range(0, training.steps + 1, training.check_every):
        run.take(training.check_every if steps else 0)
        since += 1
        for temperature in reversed(training.temperatures):
            head = Style(run.projection(), training.k, temperature)
            reached = auroc(head.read(kept_out.features, bank).score, kept_out.positive)
            if reached > best:
                best, found, since = reached, (steps, temperature), 0
        if since >= training.patience:
            break
    return found
