"""
The losses of the two heads that learn a projection, as pure functions of tensors. No training loop, no data.

Rows that come in as embeddings have length 1. Sums of the sources are means here, so that a weight means the same in a
batch of any size.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import relu, softmax

VARIANCE_FLOOR = 1e-6
"""Added to a column's variance before its correlation is taken: a constant column correlates with nothing."""


@dataclass(frozen=True, slots=True)
class MappingWeights:
    """
    What the parts of the feature mapping's loss weigh beside the agreement of two views of one picture.
    """

    shared: float = 0.5
    uncorrelated: float = 1.0
    rebuilt: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class MappedReals:
    """
    One batch of n real pictures on its way through the feature mapping.

    ``homogeneous`` and ``other_view`` float[n, r]: of length 1, of two views of each picture. ``heterogeneous``
    float[n, s]. ``features`` and ``rebuilt`` float[n, q]: what was mapped, and what both parts make of it again.
    """

    homogeneous: Tensor = field(repr=False)
    other_view: Tensor = field(repr=False)
    heterogeneous: Tensor = field(repr=False)
    features: Tensor = field(repr=False)
    rebuilt: Tensor = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Transfer:
    """
    One batch of the transfer: anchors and what they are pulled to and pushed from, all float[., r] of length 1.

    ``reals`` [n, r] are the anchors; ``traces`` [m, r]; ``generated`` [f, r]. ``closeness`` [n, n + m]: the cosine in
    feature space of each anchor to each real of the batch and to the home of each trace (the mean features of the
    reals nearest to it). ``positives`` bool[n, n + m]: which of these an anchor is pulled to; at least one, and never
    the anchor itself.
    """

    reals: Tensor = field(repr=False)
    traces: Tensor = field(repr=False)
    generated: Tensor = field(repr=False)
    closeness: Tensor = field(repr=False)
    positives: Tensor = field(repr=False)


def feature_mapping_loss(batch: MappedReals, weights: MappingWeights) -> Tensor:
    """
    Stage A of natural traces, on real pictures alone: it learns what all of them share, whatever they show.

    ``mean_i (1 - cos(z_i, z'_i)) + a mean_{i != j} (1 - cos(z_i, z_j)) + b |corr(z, u)|^2 / (r s) + c mean (h - D)^2``
    with z the homogeneous and u the heterogeneous part; the last term keeps the mapping from forgetting its input.

    OUR RECONSTRUCTION. The loss of "Let Real Images be as a Judger" (arXiv 2403.16513, AAAI-25) could not be had; this
    one follows its description: a homogeneous and a heterogeneous head, self-supervised, on real pictures only.
    """
    agreement = 1.0 - (batch.homogeneous * batch.other_view).sum(dim=1)
    cosines = batch.homogeneous @ batch.homogeneous.T
    others = ~torch.eye(len(cosines), dtype=torch.bool)
    shared = (1.0 - cosines[others]).mean() if len(cosines) > 1 else cosines.new_zeros(())
    correlation = cross_correlation(batch.homogeneous, batch.heterogeneous)
    rebuilt = (batch.features - batch.rebuilt).square().mean()
    return (
        agreement.mean()
        + weights.shared * shared
        + weights.uncorrelated * correlation.square().mean()
        + weights.rebuilt * rebuilt
    )


def cross_correlation(left: Tensor, right: Tensor) -> Tensor:
    """
    float[r, s]: the correlation over the rows of every column of the left with every column of the right.
    """
    return _standardised(left).T @ _standardised(right) / len(left)


def real_anchor_loss(batch: Transfer, *, temperature: float, softness: float) -> Tensor:
    """
    Stage B of natural traces: supervised contrast in which only reals are anchors, with soft positives.

    ``-mean_i sum_p w_ip * log[ e^{z_i.z_p / t} / (sum_{a in P(i)} e^{z_i.z_a / t} + sum_f e^{z_i.z_f / t}) ]`` where
    P(i) are the anchor's positives and ``w_ip`` is the softmax over P(i) of ``closeness / softness``. Generated
    pictures are negatives only: they are never pulled into one cluster, for a new generator will lie elsewhere.

    OUR RECONSTRUCTION of the soft (v1: extended supervised) contrastive loss of arXiv 2403.16513, as above.
    """
    least = -torch.inf
    pulled = batch.reals @ torch.cat([batch.reals, batch.traces]).T / temperature
    pushed = batch.reals @ batch.generated.T / temperature
    every = torch.cat([pulled.masked_fill(~batch.positives, least), pushed], dim=1)
    log_share = pulled - torch.logsumexp(every, dim=1, keepdim=True)
    weight = softmax((batch.closeness / softness).masked_fill(~batch.positives, least), dim=1)
    return -(weight * log_share).sum(dim=1).mean()


def trace_margin_loss(generated: Tensor, traces: Tensor, *, margin: float) -> Tensor:
    """
    The hinge of stage B: a generated picture is pushed until its cosine to every trace is at most ``margin``.

    ``mean_f max(0, max_m z_f.t_m - margin)``. OUR RECONSTRUCTION, as above.
    """
    return relu((generated @ traces.T).amax(dim=1) - margin).mean()


def supervised_contrastive_loss(embeddings: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """
    Khosla et al. (arXiv 2004.11362), equation 2: every row is an anchor, the others of its label its positives.

    ``mean_i -1/|P(i)| sum_{p in P(i)} log[ e^{z_i.z_p / t} / sum_{a != i} e^{z_i.z_a / t} ]``; an anchor that is alone
    with its label takes no part. Used for the style projection of "Parents and Children" (arXiv 2304.00500).
    """
    itself = torch.eye(len(embeddings), dtype=torch.bool)
    similarity = (embeddings @ embeddings.T / temperature).masked_fill(itself, -torch.inf)
    log_share = similarity - torch.logsumexp(similarity, dim=1, keepdim=True)
    positives = (labels[:, None] == labels[None, :]) & ~itself
    count = positives.sum(dim=1)
    anchored = count > 0
    pulled = log_share.masked_fill(~positives, 0.0).sum(dim=1)
    return -(pulled[anchored] / count[anchored]).mean()


def _standardised(columns: Tensor) -> Tensor:
    centred = columns - columns.mean(dim=0)
    return centred / (centred.square().mean(dim=0) + VARIANCE_FLOOR).sqrt()
