"""
The losses of the learnt projections, against the same sums written as loops.
"""

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from worker.fitting.contrastive_losses import (
    MappedReals,
    MappingWeights,
    Transfer,
    cross_correlation,
    feature_mapping_loss,
    real_anchor_loss,
    supervised_contrastive_loss,
    trace_margin_loss,
)


def rows(seed: int, count: int, dim: int, *, unit: bool = True) -> Tensor:
    """
    Random rows in double precision, of length 1 or not.
    """
    drawn = torch.from_numpy(np.random.default_rng(seed).normal(size=(count, dim)))
    return normalize(drawn) if unit else drawn


def test_feature_mapping_loss_is_its_definition() -> None:
    """
    Stage A is the sum of agreement, shared place, decorrelation and reconstruction, each a mean, each with its weight.
    """
    z, other, het = rows(1, 5, 3), rows(2, 5, 3), rows(3, 5, 2, unit=False)
    h, back = rows(4, 5, 4), rows(5, 5, 4)
    agreement = math.fsum(1 - float(z[i] @ other[i]) for i in range(5)) / 5
    shared = math.fsum(1 - float(z[i] @ z[j]) for i, j in product(range(5), repeat=2) if i != j) / 20
    pairs = [float(np.corrcoef(z[:, a], het[:, b])[0, 1]) ** 2 for a, b in product(range(3), range(2))]
    rebuilt = float(np.mean((h.numpy() - back.numpy()) ** 2))
    expected = agreement + 0.5 * shared + 2.0 * math.fsum(pairs) / 6 + 3.0 * rebuilt

    found = feature_mapping_loss(MappedReals(z, other, het, h, back), MappingWeights(0.5, 2.0, 3.0))

    assert pytest.approx(expected, rel=1e-4) == float(found)


def test_feature_mapping_loss_of_one_picture_is_finite() -> None:
    """
    A batch of one has no pairs and no correlation, and is still a number that can be learnt from.
    """
    z = rows(1, 1, 3).requires_grad_()

    loss = feature_mapping_loss(MappedReals(z, z, z, z, z), MappingWeights())
    torch.autograd.backward(loss)

    assert pytest.approx(0.0, abs=1e-9) == loss.item()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_constant_column_correlates_with_nothing() -> None:
    """
    A homogeneous part that has become the same for all is not blown up into a correlation.
    """
    varied = rows(7, 6, 2, unit=False)

    assert float(cross_correlation(torch.ones(6, 2, dtype=torch.float64), varied).abs().max()) < 1e-9


def test_real_anchor_loss_is_its_definition() -> None:
    """
    Stage B weighs each positive by its softmax in feature space, and divides by positives and generated pictures alone.
    """
    n, m, f, temperature, softness = 4, 2, 3, 0.2, 0.5
    z, traces, generated = rows(1, n, 3), rows(2, m, 3), rows(3, f, 3)
    closeness = rows(4, n, n + m, unit=False)
    positives = ~torch.eye(n, n + m, dtype=torch.bool)
    positives[0, n] = positives[2, n + 1] = False
    targets = [*z, *traces]
    total = 0.0
    for i in range(n):
        own = [p for p in range(n + m) if positives[i, p]]
        soft = [math.exp(float(closeness[i, p]) / softness) for p in own]
        pulled = [math.exp(float(z[i] @ targets[p]) / temperature) for p in own]
        pushed = [math.exp(float(z[i] @ made) / temperature) for made in generated]
        shares = [math.log(each / (sum(pulled) + sum(pushed))) for each in pulled]
        total -= sum(w / sum(soft) * share for w, share in zip(soft, shares, strict=True))

    found = real_anchor_loss(
        Transfer(z, traces, generated, closeness, positives), temperature=temperature, softness=softness
    )

    assert pytest.approx(total / n, rel=1e-9) == float(found)


def test_generated_pictures_are_never_pulled_together() -> None:
    """
    Stage B changes with where the generated pictures lie to the reals, not with where they lie to one another.
    """
    reals, traces = torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]), torch.tensor([[1.0, 0, 0]])
    together = torch.tensor([[0.0, 1, 0], [0, 1.0, 0]])
    apart = torch.tensor([[0.0, 1, 0], [0, -1.0, 0]])
    positives = torch.tensor([[False, True, True], [True, False, True]])

    def loss(generated: Tensor) -> float:
        batch = Transfer(reals, traces, generated, torch.zeros(2, 3), positives)
        return float(real_anchor_loss(batch, temperature=0.1, softness=1.0))

    assert loss(together) == loss(apart)


def test_trace_margin_counts_only_what_is_nearer_than_the_margin() -> None:
    """
    The hinge is the mean excess of each generated picture's nearest trace over the margin.
    """
    traces = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    generated = torch.tensor([[0.6, 0.8], [-1.0, 0.0], [-0.6, -0.8]])

    assert pytest.approx((0.8 - 0.1) / 3) == float(trace_margin_loss(generated[[0, 2, 2]], traces, margin=0.1))
    assert pytest.approx((0.8 + 0.0 + -0.6 + 3 * 1.0) / 3) == float(trace_margin_loss(generated, traces, margin=-1.0))


def test_supervised_contrast_is_its_definition() -> None:
    """
    Each anchor's mean log-share of its label's others; who is alone with a label is a negative and no anchor.
    """
    z, labels, temperature = rows(1, 6, 3), [0, 0, 0, 1, 1, 2], 0.3
    losses = []
    for i in range(5):
        exponent = {a: math.exp(float(z[i] @ z[a]) / temperature) for a in range(6) if a != i}
        positives = [a for a in exponent if labels[a] == labels[i]]
        losses.append(-sum(math.log(exponent[p] / sum(exponent.values())) for p in positives) / len(positives))

    found = supervised_contrastive_loss(z, torch.tensor(labels), temperature=temperature)

    assert pytest.approx(sum(losses) / 5, rel=1e-9) == float(found)


def test_gradients_of_both_contrasts_are_finite() -> None:
    """
    What takes no part, the anchor itself above all, leaves no infinity in the gradient.
    """
    z = rows(1, 4, 3).requires_grad_()
    positives = ~torch.eye(4, 5, dtype=torch.bool)
    batch = Transfer(z, rows(2, 1, 3), rows(3, 2, 3), torch.zeros(4, 5, dtype=torch.float64), positives)

    torch.autograd.backward(
        real_anchor_loss(batch, temperature=0.01, softness=1.0)
        + supervised_contrastive_loss(z, torch.tensor([0, 0, 1, 2]), temperature=0.01)
    )

    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    assert float(z.grad.abs().max()) > 0
