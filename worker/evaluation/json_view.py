"""
The JSON object of an evaluation. Its keys are a promise; numbers that were not measured are null.

``heads.<name>``, ``rules.<name>``, ``peers.<name>``, ``fused``, ``control`` and ``control_reencoded`` have one shape:
``ap``, ``auroc`` and ``balanced_accuracy`` as ``{value, low, high, low_sources, high_sources}``, and what else was
measured of them. ``low`` and ``high`` are for other pictures of these sources, ``low_sources`` and ``high_sources`` for
other sources too. ``mean_ap`` and ``mean_auroc`` are of each held-out set on its own, averaged: offsets between sources
are no errors there. ``balanced_accuracy`` is at even odds: log-odds above 0, after the prior shift to the policy's base
rate, say "generated", and what says nothing counts half. What ships, with the policy's thresholds, margin and coverage,
is ``fused.shipped``. ``fpr`` says which share of held-out reals is flagged under the policy's guarantee, in all and in
every source, and ``fpr.pooled_value`` which would be if the bound had to hold over all sources together only. Where no
false-positive guarantee could be given, ``fpr``, ``outcomes`` and ``fused.shipped`` are null with a ``reason``.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Final

import numpy as np

from worker.evaluation.comparison import Comparison
from worker.evaluation.control import ORIGINAL, REENCODED
from worker.evaluation.evaluation import Evaluation, is_head
from worker.evaluation.false_positives import promised
from worker.evaluation.measures import Measures, risk_coverage
from worker.evaluation.resampling import Interval
from worker.evaluation.scores import FUSED, PLAIN_KNN
from worker.evaluation.shipped import Shipped
from worker.evaluation.ufd import UfdTable

VERSION: Final = 1
PEER: Final = "peer:"
RISK_POINTS: Final = 101


def evaluation_object(found: Evaluation) -> dict[str, Any]:
    """
    The evaluation as one JSON document.
    """
    return {
        "version": VERSION,
        "dataset": found.dataset.name,
        "split": found.split.name,
        "n_real": found.n_real,
        "n_ai": found.n_ai,
        "encoder": found.encoder,
        "views": asdict(found.views),
        "notes": list(found.split.notes),
        **_columns(found.measures),
        "fused": {**_measures(found.measures[FUSED]), "shipped": _shipped(found.shipped)},
        "originals": _columns(found.originals) if found.originals else None,
        "fpr": {**asdict(found.fpr), "promised": promised(found.fpr)},
        "outcomes": asdict(found.outcomes),
        "risk_coverage": _risk_coverage(found),
        "comparisons": {row.name: _comparison(row) for row in found.comparisons},
        "folds": [asdict(row) for row in found.folds],
        "duplicates": {
            "identical": len(found.dataset.duplicates),
            "suspects": found.duplicates.suspects,
            "confirmed": [asdict(pair) for pair in found.duplicates.confirmed],
        },
        "skipped": [{"name": one.name, "code": str(one.code), "detail": one.detail} for one in found.dataset.skipped],
        "robustness": {row.name: asdict(row) for row in found.sweep},
        "teaching": [asdict(curve) for curve in found.teaching.curves],
        "teaching_notes": list(found.teaching.notes),
    }


def ufd_object(table: UfdTable) -> dict[str, Any]:
    """
    The table of UniversalFakeDetect as one JSON document; accuracies in percent.
    """
    return {
        "version": VERSION,
        "layout": "ufd",
        "sets": [asdict(row) for row in table.rows],
        "mean": table.mean,
        "absent": list(table.absent),
        "absent_because": dict(table.absent),
        "skipped": table.skipped,
    }


def _columns(measures: Mapping[str, Measures]) -> dict[str, Any]:
    shown = {name: _measures(one) for name, one in measures.items()}
    return {
        "fused": shown.get(FUSED),
        "heads": {name: one for name, one in shown.items() if is_head(name)},
        "rules": {name: one for name, one in shown.items() if PLAIN_KNN in name},
        "control": shown.get(ORIGINAL),
        "control_reencoded": shown.get(REENCODED),
        "peers": {name.removeprefix(PEER): one for name, one in shown.items() if name.startswith(PEER)},
    }


def _measures(one: Measures) -> dict[str, Any]:
    return {
        "ap": _interval(one.ap),
        "auroc": _interval(one.auroc),
        "mean_ap": _interval(one.mean_ap),
        "mean_auroc": _interval(one.mean_auroc),
        "balanced_accuracy": _interval(one.balanced_accuracy),
        "real_accuracy": _interval(one.real_accuracy),
        "fake_accuracy": _interval(one.fake_accuracy),
        "tpr_at_fpr": {f"{rate:g}": value for rate, value in one.tpr_at.items()},
        "ece": one.ece,
        "brier": one.brier,
        "said": one.said,
        "worst_generator": asdict(one.worst) if one.worst is not None else None,
        "generators": [asdict(row) for row in one.generators],
    }


def _shipped(found: Shipped) -> dict[str, Any]:
    names = [field.name for field in fields(Shipped) if field.name != "reason"]
    return {**{name: _interval(getattr(found, name)) for name in names}, "reason": found.reason}


def _risk_coverage(found: Evaluation) -> dict[str, list[float]]:
    """
    Of the fused score, at most ``RISK_POINTS`` points, the one of all pictures among them.
    """
    coverage, risk = risk_coverage(found.judged.positive, found.judged.columns[FUSED].filled)
    at = np.unique(np.linspace(0, len(coverage) - 1, min(RISK_POINTS, len(coverage))).round().astype(int))
    return {"coverage": coverage[at].tolist(), "risk": risk[at].tolist()}


def _comparison(row: Comparison) -> dict[str, Any]:
    return {
        "ap": _interval(row.ap),
        "mean_ap": _interval(row.mean_ap),
        "better_mean_ap": row.better_mean_ap,
        "balanced_accuracy": _interval(row.balanced_accuracy),
        "better_ap": row.better_ap,
        "better_balanced_accuracy": row.better_accuracy,
    }


def _interval(interval: Interval) -> dict[str, float | None]:
    return asdict(interval)
