"""
The JSON object of an evaluation. Its keys are a promise; numbers that were not measured are null.

``heads.<name>``, ``rules.<name>``, ``peers.<name>``, ``fused``, ``control`` and ``control_reencoded`` have one shape:
``ap``, ``auroc`` and ``balanced_accuracy`` as ``{value, low, high}``, and what else was measured of them.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from worker.evaluation.comparison import Comparison
from worker.evaluation.control import ORIGINAL, REENCODED
from worker.evaluation.evaluation import Evaluation, is_head
from worker.evaluation.measures import Measures
from worker.evaluation.resampling import Interval
from worker.evaluation.scores import FUSED, PLAIN_KNN
from worker.evaluation.ufd import UfdTable

VERSION: Final = 1
PEER: Final = "peer:"


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
        "originals": _columns(found.originals) if found.originals else None,
        "fpr": asdict(found.fpr),
        "outcomes": {**asdict(found.outcomes), "abstain_rate": found.outcomes.abstain_rate},
        "comparisons": {row.name: _comparison(row) for row in found.comparisons},
        "folds": [asdict(row) for row in found.folds],
        "duplicates": {
            "identical": len(found.dataset.duplicates),
            "suspects": found.duplicates.suspects,
            "confirmed": [asdict(pair) for pair in found.duplicates.confirmed],
        },
        "skipped": [{"name": one.name, "code": str(one.code), "detail": one.detail} for one in found.dataset.skipped],
        "robustness": {row.name: asdict(row) for row in found.sweep},
        "teaching": [asdict(curve) for curve in found.teaching],
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


def _comparison(row: Comparison) -> dict[str, Any]:
    return {
        "ap": _interval(row.ap),
        "balanced_accuracy": _interval(row.balanced_accuracy),
        "better_ap": row.better_ap,
        "better_balanced_accuracy": row.better_accuracy,
    }


def _interval(interval: Interval) -> dict[str, float | None]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
