"""
Learning ``natural_traces``: a map on which reals share a place and generated pictures do not. Torch, on one thread.

The losses are in ``contrastive_losses``; what the head does with the map is ``worker/heads/natural_traces.py``.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from worker.fitting.contrastive_losses import (
    MappedReals,
    MappingWeights,
    Transfer,
    feature_mapping_loss,
    real_anchor_loss,
    trace_margin_loss,
)
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
from worker.heads.features import Column, Mask, References, Rows
from worker.heads.natural_traces import NaturalTraces, TraceMap, look

MOST_OF_A_LABEL: Final = 4000


@dataclass(frozen=True, slots=True)
class TraceTraining:
    """
    How the map is learnt. The defaults suit hundreds to thousands of references; a starter set has no more.

    ``reduced``: dimensions kept of the input before the map; ``whitening``: how much of their differences in variance
    is taken away, 0 to 1. ``traces``: at most so many, and at most one for every four reals. ``noise``: standard
    deviation, in parts of the input's own, of what is added to a view. Stage B takes at most ``strides`` times
    ``stride`` steps, and ends after ``patience`` strides without a better score on what was held out.

    ``softness`` is wide on purpose: with 0.1 reals were pulled to those of their own content only, traces became
    contents, and a new content counted as generated (on made-up data, held-out AUROC 0.8 instead of 0.94).
    """

    reduced: int = 96
    whitening: float = 1.0
    hidden: int = 128
    homogeneous: int = 128
    heterogeneous: int = 32
    dropout: float = 0.3
    noise: float = 0.3
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    batch: int = 96
    mapping_steps: int = 60
    strides: int = 16
    stride: int = 10
    patience: int = 5
    traces: int = 64
    judges: int = 16
    temperature: float = 0.3
    softness: float = 1.0
    hinge: float = 1.0
    margin: float = 0.0


class TraceNetwork(nn.Module):
    """
    The map under training: reduced inputs to the homogeneous part, the heterogeneous part, and back.
    """

    def __init__(self, inputs: int, training: TraceTraining) -> None:
        super().__init__()
        self.dropout = nn.Dropout(training.dropout)
        self.trunk = nn.Linear(inputs, training.hidden)
        self.homogeneous = nn.Linear(training.hidden, training.homogeneous)
        self.heterogeneous = nn.Linear(training.hidden, training.heterogeneous)
        self.back = nn.Linear(training.homogeneous + training.heterogeneous, inputs)

    def forward(self, reduced: Tensor) -> Tensor:
        """
        The homogeneous part, float[n, r], of length 1.
        """
        return normalize(self.homogeneous(self.hidden(reduced)))

    def hidden(self, reduced: Tensor) -> Tensor:
        """
        What both parts are made of, float[n, h].
        """
        return torch.relu(self.trunk(self.dropout(reduced)))

    def mapped(self, view: Tensor, other: Tensor) -> MappedReals:
        """
        Two views of a batch of reals on their way through.
        """
        hidden = self.hidden(view)
        homogeneous, heterogeneous = normalize(self.homogeneous(hidden)), self.heterogeneous(hidden)
        rebuilt = self.back(torch.cat([homogeneous, heterogeneous], dim=1))
        return MappedReals(homogeneous, self(other), heterogeneous, view, rebuilt)


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """
    The references in the reduced space.

    ``looks`` float32[n, q]: what the head will see of each. ``crops`` float32[m, q]: what it would see if one crop were
    the whole picture; ``first`` and ``count`` int64[n] say which are a picture's own. ``weights``: how often each is
    drawn.
    """

    looks: Tensor = field(repr=False)
    crops: Tensor = field(repr=False)
    first: Rows = field(repr=False)
    count: Rows = field(repr=False)
    positive: Mask = field(repr=False)
    weights: Column = field(repr=False)

    def another(self, rows: Rows, random: np.random.Generator) -> Tensor:
        """
        Another view of these pictures: one of a picture's crops, or the same look again where it has none.
        """
        count = self.count[rows]
        view = self.looks[rows].clone()
        cropped = np.flatnonzero(count)
        chosen = self.first[rows[cropped]] + (random.random(len(cropped)) * count[cropped]).astype(np.int64)
        view[cropped] = self.crops[chosen]
        return view


def fit_natural_traces(
    references: References, *, seed: int, training: TraceTraining = TraceTraining()
) -> NaturalTraces:
    """
    Learn the head from references of both labels, in seconds on one core; the same for the same seed on one machine.

    A first run on all but the held-out groups finds how many steps the transfer takes before it stops helping there;
    a second run on all references takes so many. The reduction before the map has seen the held-out groups too, but not
    which label they are of. Beyond ``MOST_OF_A_LABEL`` of a label a random part is learnt from.
    Native crops are looked at when any reference has them. Raises ValueError with too few references of a label.
    """
    known = learnable(references, "natural_traces", most=MOST_OF_A_LABEL, seed=seed)
    with_native = len(known.features.native) > 0
    weights = group_weights(known)
    looks = look(known.features, with_native=with_native)
    reduction = whitened_directions(looks, weights, most=training.reduced, power=training.whitening)
    views = _views(known, reduction, looks, weights)
    out = held_out(known, seed)
    with quiet_torch(seed):
        strides = _Run(views, rows_of(~out), training, seed).until_it_stops_helping(rows_of(out))
        run = _Run(views, np.arange(len(known), dtype=np.int64), training, seed)
        run.map_features()
        for _ in range(strides):
            run.transfer()
    return NaturalTraces(_folded(run.network, reduction), run.traces.numpy(), run.judges, with_native)


class _Run:
    """
    One training on some of the references, step by step.
    """

    def __init__(self, views: Views, rows: Rows, training: TraceTraining, seed: int) -> None:
        self.views, self.training = views, training
        self.reals, self.generated = rows[~views.positive[rows]], rows[views.positive[rows]]
        self.random = np.random.default_rng(seed)
        self.network = TraceNetwork(views.looks.shape[1], training)
        self.descent = Descent(
            self.network.parameters(), learning_rate=training.learning_rate, weight_decay=training.weight_decay
        )
        self.noise = training.noise * views.looks.std(dim=0)
        self.traces = torch.zeros((0, training.homogeneous))
        self.homes = torch.zeros((0, views.looks.shape[1]))

    @property
    def judges(self) -> int:
        return max(1, min(self.training.judges, len(self.traces)))

    def map_features(self) -> None:
        """
        Stage A, on reals alone.
        """
        for _ in range(self.training.mapping_steps):
            rows = self._draw(self.reals)
            view, other = self._noisy(self.views.looks[rows]), self._noisy(self.views.another(rows, self.random))
            self.descent.step(feature_mapping_loss(self.network.mapped(view, other), MappingWeights()))
        self._place_traces()

    def transfer(self) -> None:
        """
        ``stride`` steps of stage B, after which the traces follow the map.
        """
        training = self.training
        for _ in range(training.stride):
            reals, generated = self._draw(self.reals), self._draw(self.generated)
            batch = self._pulled(reals, self._mapped(reals), self._mapped(generated))
            self.descent.step(
                real_anchor_loss(batch, temperature=training.temperature, softness=training.softness)
                + training.hinge * trace_margin_loss(batch.generated, self.traces, margin=training.margin)
            )
        self._place_traces()

    def until_it_stops_helping(self, judged: Rows) -> int:
        """
        How many strides of stage B, at least one, did best on the pictures kept out.
        """
        self.map_features()
        best, best_strides = -1.0, 0
        for stride in range(1, self.training.strides + 1):
            self.transfer()
            found = auroc(self._score(judged), self.views.positive[judged])
            if found > best:
                best, best_strides = found, stride
            elif stride - best_strides >= self.training.patience:
                break
        return best_strides

    def _pulled(self, rows: Rows, reals: Tensor, generated: Tensor) -> Transfer:
        looks = normalize(self.views.looks[rows])
        closeness = looks @ torch.cat([looks, self.homes]).T
        near = (reals.detach() @ self.traces.T).topk(self.judges, dim=1).indices
        to_traces = torch.zeros((len(rows), len(self.traces)), dtype=torch.bool).scatter_(1, near, value=True)
        others = torch.from_numpy(rows[:, None] != rows[None, :])
        return Transfer(reals, self.traces, generated, closeness, torch.cat([others, to_traces], dim=1))

    def _score(self, rows: Rows) -> Column:
        cosines = self._embedded(rows) @ self.traces.T
        return -cosines.topk(self.judges, dim=1).values.mean(dim=1).numpy().astype(np.float64)

    def _place_traces(self) -> None:
        embedded = self._embedded(self.reals)
        count = max(1, min(self.training.traces, len(self.reals) // 4))
        self.traces, nearest = spherical_means(embedded, count, self.random)
        members = torch.nn.functional.one_hot(nearest, len(self.traces)).to(torch.float32)
        self.homes = normalize(members.T @ normalize(self.views.looks[self.reals]))

    def _embedded(self, rows: Rows) -> Tensor:
        self.network.eval()
        with torch.no_grad():
            embedded: Tensor = self.network(self.views.looks[rows])
        self.network.train()
        return embedded

    def _draw(self, rows: Rows) -> Rows:
        weight = self.views.weights[rows]
        size = min(self.training.batch, len(rows))
        return self.random.choice(rows, size, replace=False, p=weight / weight.sum())

    def _mapped(self, rows: Rows) -> Tensor:
        mapped: Tensor = self.network(self._noisy(self.views.looks[rows]))
        return mapped

    def _noisy(self, view: Tensor) -> Tensor:
        return view + self.noise * torch.randn_like(view)


def _views(known: References, reduction: Reduction, looks: np.ndarray, weights: Column) -> Views:
    features = known.features
    owner = features.native_owner
    places = np.arange(len(known))
    first, end = np.searchsorted(owner, places, side="left"), np.searchsorted(owner, places, side="right")
    return Views(
        looks=torch.from_numpy(reduction(looks).astype(np.float32)),
        crops=torch.from_numpy(_alone(features.native, reduction).astype(np.float32)),
        first=first.astype(np.int64),
        count=(end - first).astype(np.int64),
        positive=known.positive,
        weights=weights,
    )


def _alone(crops: np.ndarray, reduction: Reduction) -> Floats:
    """
    Crops as if each were a whole picture, global view and mean crop in one; reduced without writing them twice.
    """
    half = crops.shape[1]
    if len(reduction.mean) == half:
        return np.empty((0, reduction.basis.shape[1]))
    both = (reduction.basis[:half] + reduction.basis[half:]) * np.sqrt(0.5)
    return np.asarray(crops @ both - reduction.mean @ reduction.basis, dtype=np.float64)


def _folded(network: TraceNetwork, reduction: Reduction) -> TraceMap:
    inner = network.trunk.weight.detach().numpy().T.astype(np.float64)
    bias = network.trunk.bias.detach().numpy().astype(np.float64)
    return TraceMap(
        inner=(reduction.basis @ inner).astype(np.float32),
        inner_bias=(bias - reduction.mean @ reduction.basis @ inner).astype(np.float32),
        outer=network.homogeneous.weight.detach().numpy().T.copy(),
        outer_bias=network.homogeneous.bias.detach().numpy().copy(),
    )
