"""
The name of every metric, once; mypy refuses any other.

What each of them means, with its unit, labels and buckets, is said in ``worker.telemetry.catalogue``.
"""

from typing import Literal

MetricName = Literal[
    "events_consumed_total",
    "verdicts_total",
    "dead_letters_total",
    "failures_total",
    "retries_total",
    "fetch_breaker_total",
    "cache_requests_total",
    "cache_writes_total",
    "embeddings_reused_total",
    "archive_writes_total",
    "archive_reads_total",
    "shadow_total",
    "shadow_seconds",
    "bank_swaps_total",
    "forgotten_total",
    "content_notes_total",
    "micro_batches_total",
    "micro_batch_size",
    "perturbed_total",
    "encode_seconds",
    "search_seconds",
    "assess_seconds",
    "fetch_seconds",
    "decode_seconds",
    "queue_wait_seconds",
    "event_age_seconds",
    "end_to_end_seconds",
    "score",
    "probability",
    "nearest_distance",
    "coverage_p",
    "grey_zone_total",
    "encoder_out_of_memory_total",
    "commits_total",
    "rebalances_total",
    "uploads_forgotten_total",
    "pauses_total",
    "decoders_ended_total",
    "device_jpegs_total",
]
"""What is counted or measured as it happens."""

GaugeName = Literal[
    "build_info",
    "ready",
    "paused",
    "draining",
    "in_flight",
    "in_flight_bytes",
    "dead_letters_withheld",
    "queue_depth",
    "encoder_utilisation",
    "consumer_lag",
    "oldest_uncommitted_seconds",
    "bank_info",
    "bank_refused",
    "bank_age_seconds",
    "calibration_score_quantile",
    "drift_ks",
    "drift_samples",
]
"""What is read off the worker when somebody asks."""
