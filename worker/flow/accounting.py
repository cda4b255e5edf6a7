"""
What a released verdict adds to the measurements: ages, durations, scores and distances.

Counting outcomes is the loop's; what is made of the measurements, is ``worker.telemetry``.
"""

from datetime import UTC, datetime
from typing import Final

from schemas.verdict import UNCERTAIN, ImageVerdictV1
from worker.ports import Recorder

MS_PER_S: Final = 1000.0


def measure_verdict(recorder: Recorder, verdict: ImageVerdictV1, *, now_s: float) -> None:
    """
    Measure a verdict that is released at ``now_s``, in seconds since the epoch.
    """
    _measure_timing(recorder, verdict, now_s)
    outcome, evidence, calibration = verdict.outcome, verdict.evidence, verdict.calibration
    if outcome.score is not None:
        recorder.observe("score", outcome.score, label=outcome.label or UNCERTAIN)
    if outcome.probability is not None:
        recorder.observe("probability", outcome.probability)
    if calibration is not None:
        recorder.observe("coverage_p", calibration.coverage_p)
    if evidence is not None:
        for label, found in evidence.per_label.items():
            if found.max_similarity is not None:
                # Rounding lets a picture be more like a reference than the reference itself.
                recorder.observe("nearest_distance", max(0.0, 1.0 - found.max_similarity), label=label)


def _measure_timing(recorder: Recorder, verdict: ImageVerdictV1, now_s: float) -> None:
    timing = verdict.timing
    if timing.event_age_ms is not None:
        # The contract counts the age until the verdict was made: before that it was received, after that it waited for
        # its turn in the partition's line.
        at_receipt_s = max(0.0, timing.event_age_ms - timing.total_ms) / MS_PER_S
        waited_s = (datetime.fromtimestamp(now_s, UTC) - timing.produced_at).total_seconds()
        recorder.observe("event_age_seconds", at_receipt_s)
        recorder.observe("end_to_end_seconds", timing.event_age_ms / MS_PER_S + max(0.0, waited_s))
    if timing.fetch_ms is not None:
        recorder.observe("fetch_seconds", timing.fetch_ms / MS_PER_S)
    if timing.decode_ms is not None:
        recorder.observe("decode_seconds", timing.decode_ms / MS_PER_S)
