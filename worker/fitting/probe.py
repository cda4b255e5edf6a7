"""
Fitting the linear probe from a bank's references: logistic regression, with its strength and inputs chosen by source.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from sklearn.linear_model import LogisticRegression

from worker.fitting.held_out import HeldOut, balanced_weights, held_out
from worker.fitting.labelled import Labelled, paired_sources
from worker.heads.features import Column, Mask, Matrix, References
from worker.heads.probe import Inputs, Probe, probe_inputs

STRENGTHS: Final = (1e-3, 1e-2, 1e-1)
"""C of scikit-learn: smaller is stronger regularisation. Inputs have deviation 1."""

DEFAULT_STRENGTH: Final = 1e-2
"""Where there is nothing to hold out."""

MAX_CHOOSING: Final = 2000
"""So many references, drawn at random, choose the strength; the fit itself uses all."""

_CHOOSING_TOLERANCE: Final = 1e-3
_TOLERANCE: Final = 1e-5
_MAX_ITERATIONS: Final = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """
    A logistic regression over standardised inputs, and how they are standardised.
    """

    model: LogisticRegression
    mean: Column = field(repr=False)
    deviation: Column = field(repr=False)

    def decision(self, inputs: Inputs | Matrix) -> Column:
        """
        Log-odds, float64[n].
        """
        decision: Column = self.model.decision_function((inputs - self.mean) / self.deviation)
        return decision


def fit_probe(references: References, *, seed: int) -> Probe:
    """
    The probe on the global view, or with the mean of the native crops beside it where that ranks unseen sources better.

    Classes and sources are weighed as ``balanced_weights`` says. Raises ValueError where a class is missing.
    """
    if references.positive.all() or not references.positive.any():
        raise ValueError("a probe is fitted from both classes, and the references are of one: add the other")
    native, strength = _chosen(references, seed=seed)
    inputs = probe_inputs(references.features, native=native)
    fitted = fit_scaled(
        inputs,
        references.positive,
        weight=balanced_weights(references),
        strength=strength,
        tolerance=_TOLERANCE,
    )
    weight = fitted.model.coef_[0] / fitted.deviation
    return Probe(weight=weight, bias=float(fitted.model.intercept_[0] - weight @ fitted.mean), c=strength)


def fit_scaled(inputs: Inputs | Matrix, positive: Mask, *, weight: Column, strength: float, tolerance: float) -> Scaled:
    """
    Standardise by the inputs' mean and deviation, and fit; a constant input stays 0.
    """
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1).astype(inputs.dtype)
    model = LogisticRegression(C=strength, tol=tolerance, max_iter=_MAX_ITERATIONS)
    model.fit((inputs - mean) / deviation, positive, sample_weight=weight)
    return Scaled(model, mean, deviation)


def _chosen(references: References, *, seed: int) -> tuple[bool, float]:
    """
    Whether to look at the native crops, and the strength: what ranks held-out sources best, by weighted AUROC.

    Within each source where enough of them hold both labels, see ``worker.fitting.labelled``.

    Not by log-loss: under a shift of source it punishes confidence more than it rewards order, and calibration comes
    later. Of equals, the fewer inputs and the stronger regularisation.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(references))[:MAX_CHOOSING])
    sample = references.take(rows)
    parts = held_out(sample, seed=seed)
    if not parts:
        return False, DEFAULT_STRENGTH
    views = (False, True) if len(sample.features.native) else (False,)
    choices = [(native, strength) for native in views for strength in STRENGTHS]
    areas = [_area(sample, parts, native=native, strength=strength) for native, strength in choices]
    return choices[int(np.argmax(areas))]


def _area(references: References, parts: tuple[HeldOut, ...], *, native: bool, strength: float) -> float:
    # Single precision is enough to choose by, and twice as fast.
    inputs = probe_inputs(references.features, native=native).astype(np.float32)
    weight, positive = balanced_weights(references), references.positive
    decision = np.empty(len(references))
    for part in parts:
        fitted = fit_scaled(
            inputs[part.train],
            positive[part.train],
            weight=weight[part.train],
            strength=strength,
            tolerance=_CHOOSING_TOLERANCE,
        )
        decision[part.test] = fitted.decision(inputs[part.test])
    return round(Labelled(positive, weight, paired_sources(references)).share_above(decision), 4)
