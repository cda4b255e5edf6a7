"""
The name of every metric, once; mypy refuses any other.
"""

from typing import Literal

MetricName = Literal[
    # Counter: records taken from the upload topic.
    "events_consumed_total",
    # Counter, label status: verdicts released (decided, abstained, failed).
    "verdicts_total",
    # Counter, label code: dead letters released.
    "dead_letters_total",
    # Counter, labels stage and code: uploads that ended as failed verdicts.
    "failures_total",
    # Counter, label result: hit, miss, invalid (damaged or foreign value), error (Redis down or slow),
    # skipped (breaker open).
    "cache_requests_total",
    # Counter, label result: stored, error, skipped.
    "cache_writes_total",
    # Counter, label tier: uploads whose embedding was not computed for them (process, redis, coalesced).
    "embeddings_reused_total",
    # Counter, label reason: micro-batches closed because of size, deadline or drain.
    "micro_batches_total",
    # Histogram: pictures per micro-batch.
    "micro_batch_size",
    # Counter, label result: pictures of the grey zone whose embedding shift was measured, or could not be for lack of
    # memory (out_of_memory) or of finite features (nonfinite), and which were judged without it.
    "perturbed_total",
    # Histogram: seconds in the encoder, per micro-batch, with all views and perturbed copies.
    "encode_seconds",
    # Histogram: seconds in the bank, per search batch.
    "search_seconds",
    # Histogram: seconds in the heads of the fitted judgement, per search batch; nothing without one.
    "assess_seconds",
    # Counter, label result: pictures that the cheap heads left within the policy's grey zone, or outside.
    "grey_zone_total",
    # Counter: encoder batches halved because the device was out of memory.
    "encoder_out_of_memory_total",
    # Counter, label result: ok, refused (the group was rebalancing).
    "commits_total",
    # Counter, label kind: partitions assigned, revoked, lost.
    "rebalances_total",
    # Counter: unfinished uploads forgotten because their partition was revoked.
    "uploads_forgotten_total",
    # Counter: times the partitions were paused for lack of room.
    "pauses_total",
]
