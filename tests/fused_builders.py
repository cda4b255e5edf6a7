"""
A judgement under the rule ``fused``, the same each time: the golden events are made from it.
"""

from typing import Any

from schemas.judgement import AttributionV1, CalibrationV1
from schemas.verdict import Reason, ReasonCode, ScoreComponent
from tests.builders import a_judgement, thresholds
from worker.domain import Judgement


def a_fused_judgement(**changes: Any) -> Judgement:  # noqa: ANN401 - a field of any type may be changed
    """
    A judgement that a fitted judgement came to, under the rule ``fused``.
    """
    fields = {
        "score": 0.97,
        "margin": 0.94,
        "reasons": (
            Reason(
                code=ReasonCode.CALIBRATED,
                message="ai_generated has probability 0.970; p-value 0.00332, at most 0.05; strongest heads, in "
                "log-odds: probe +2.40, knn +1.10, real_only +0.70",
            ),
        ),
        "thresholds": thresholds().model_copy(update={"rule": "fused", "calibration_id": "e1" * 32}),
        "scores": (
            ScoreComponent(name="soft_vote", value=0.93, version="1"),
            ScoreComponent(name="nearest_neighbour", value=0.03, version="1"),
            ScoreComponent(name="knn", value=0.21, version="1", evidence=1.1),
            ScoreComponent(name="probe", value=3.7, version="1", evidence=2.4),
            ScoreComponent(name="real_only", value=1.4, version="1", evidence=0.7),
        ),
        "probability": 0.97,
        "calibration": CalibrationV1(
            id="e1" * 32,
            p_value=0.00332,
            alpha=0.05,
            flag_threshold=0.05,
            guarantee="each_source",
            sources=4,
            bucket="JPEG/>=1024",
            coverage_p=0.61,
            coverage_alpha=0.01,
            base_rate=0.5,
        ),
        "attribution": AttributionV1(
            generator="flux", probability=0.81, posterior={"flux": 0.81, "real": 0.12, "stylegan2": 0.07}
        ),
        "missing_heads": ("perturbation",),
    }
    return a_judgement(**{**fields, **changes})
