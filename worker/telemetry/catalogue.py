"""
Every metric: what it means, its kind, its labels with all values they may have, and its buckets.

The names themselves are declared in ``worker.metric_names``; how they are exposed, is ``prometheus.py``. Units are the
base units of Prometheus: seconds, bytes, and shares between 0 and 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from schemas.errors import ErrorCode, Stage
from schemas.verdict import Status
from worker.metric_names import GaugeName, MetricName

PREFIX: Final = "touchstone"
OTHER: Final = "other"
"""What a label says instead of a value that it may not have."""

Kind = Literal["counter", "histogram", "gauge"]


@dataclass(frozen=True, slots=True)
class Label:
    """
    One label: the ``values`` that it may have or, where a deployment brings its own, at most ``limit`` different ones.
    """

    name: str
    values: frozenset[str] = frozenset()
    limit: int = 0

    @property
    def bound(self) -> int:
        """
        How many different values there can be, ``other`` included.
        """
        return (len(self.values) or self.limit) + 1


@dataclass(frozen=True, slots=True)
class Metric:
    """
    One metric; ``buckets`` are the upper bounds of a histogram's, without the last one, which has none.
    """

    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()


def _of(name: str, *values: str) -> Label:
    return Label(name, frozenset(values))


def _counter(text: str, *labels: Label) -> Metric:
    return Metric("counter", text, labels)


def _histogram(text: str, buckets: tuple[float, ...], *labels: Label) -> Metric:
    return Metric("histogram", text, labels, buckets)


def _gauge(text: str, *labels: Label) -> Metric:
    return Metric("gauge", text, labels)


_FAST: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SLOW: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LONG: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
_SHARES: Final = (0.01, 0.05, *(tenth / 10 for tenth in range(1, 10)), 0.95, 0.99, 1.0)
_DISTANCES: Final = (0.001, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)
_POWERS_OF_TWO: Final = tuple(float(2**power) for power in range(9))

WAITING: Final = ("fetch", "recall", "decode", "encode", "judge", "remember")
"""The stages with a queue before them."""

_CODE: Final = _of("code", *ErrorCode)
_STAGE: Final = _of("stage", *Stage)
_QUEUE: Final = _of("stage", *WAITING)
_DECISION: Final = Label("label", limit=16)
_PARTITION: Final = (Label("topic", limit=8), Label("partition", limit=1024))
_DRIFT_OF: Final = _of("of", "score", "distance")

MEASURED: Final[Mapping[MetricName, Metric]] = {
    "events_consumed_total": _counter("Records taken from the upload topic and the retry topics."),
    "verdicts_total": _counter("Verdicts released.", _of("status", *get_args(Status))),
    "dead_letters_total": _counter(
        "Dead letters released, those beside failed verdicts included; what a storm limit holds back is none.", _CODE
    ),
    "failures_total": _counter("Uploads that ended as failed verdicts.", _STAGE, _CODE),
    "retries_total": _counter(
        "Uploads tried again after a transient failure: at once within the worker, or later by way of a retry topic.",
        _of("where", "process", "topic"),
        _CODE,
    ),
    "fetch_breaker_total": _counter(
        "Hosts that stopped answering and are left alone (opened), fetches that were put off because of it or because "
        "too many of the host's were under way (refused), and hosts that answer again (closed).",
        _of("result", "opened", "refused", "closed"),
    ),
    "cache_requests_total": _counter(
        "Hashes asked of Redis; invalid is a damaged or foreign value, error a Redis that is down or slow, skipped a "
        "request that was not made because it was so a moment ago.",
        _of("result", "hit", "miss", "invalid", "error", "skipped"),
    ),
    "cache_writes_total": _counter("Sightings written to Redis.", _of("result", "stored", "error", "skipped")),
    "embeddings_reused_total": _counter(
        "Uploads whose embedding was not computed for them, by where it came from.",
        _of("tier", "process", "redis", "archive", "coalesced"),
    ),
    "archive_writes_total": _counter(
        "Sightings kept for later replays, by what became of them.", _of("result", "stored", "error", "skipped")
    ),
    "archive_reads_total": _counter(
        "Sightings that a replay asked the archive for, by what was found.", _of("result", "hit", "miss", "invalid")
    ),
    "shadow_total": _counter(
        "Uploads sampled for the shadow judge, by what became of them.",
        _of("result", "judged", "dropped", "failed", "published", "unacknowledged"),
    ),
    "shadow_seconds": _histogram("In the candidate's judge, for a batch of sampled uploads.", _FAST),
    "bank_swaps_total": _counter("Banks that were announced.", _of("result", "swapped", "refused", "unreachable")),
    "forgotten_total": _counter(
        "Values that were told to go because their content was deleted; unknown is a content whose bytes nobody knows, "
        "unreadable a record of a deletion that says nothing, invalid an entry that no worker writes and that was "
        "removed from where Redis keeps which bytes a content had, and where bytes may lie.",
        _of("store", "process", "archive", "redis", "index", "event"),
        _of("result", "removed", "failed", "unknown", "unreadable", "invalid"),
    ),
    "content_notes_total": _counter(
        "Contents whose bytes were noted, so that they can be forgotten by name.",
        _of("result", "stored", "error", "skipped"),
    ),
    "micro_batches_total": _counter(
        "Micro-batches, by why they closed.", _of("reason", "size", "arrived", "deadline", "drain")
    ),
    "micro_batch_size": _histogram("Pictures in a micro-batch.", _POWERS_OF_TWO),
    "perturbed_total": _counter(
        "Pictures of the grey zone, by whether their embedding shift could be measured.",
        _of("result", "measured", "out_of_memory", "nonfinite"),
    ),
    "encode_seconds": _histogram("In the encoder, for a micro-batch with all views and perturbed copies.", _SLOW),
    "search_seconds": _histogram("In the bank, for a search batch.", _FAST),
    "assess_seconds": _histogram("In the heads of the fitted judgement, for a search batch; none without one.", _FAST),
    "fetch_seconds": _histogram("Fetching the bytes of an upload, where that succeeded.", _SLOW),
    "decode_seconds": _histogram("Decoding a picture with all its views, where its upload was judged.", _FAST),
    "queue_wait_seconds": _histogram("Waiting before a stage, for one upload.", _SLOW, _QUEUE),
    "event_age_seconds": _histogram(
        "Age of an upload when it was received, since its own time or its record's.", _LONG
    ),
    "end_to_end_seconds": _histogram(
        "From an upload's own time, or its record's, to the release of its verdict.", _LONG
    ),
    "score": _histogram("Score of the bank's positive label, by decision.", _SHARES, _DECISION),
    "probability": _histogram(
        "Calibrated probability of the positive label; none without a fitted judgement.", _SHARES
    ),
    "nearest_distance": _histogram(
        "Cosine distance of an upload to the nearest reference of a label.", _DISTANCES, _DECISION
    ),
    "coverage_p": _histogram(
        "Share of the calibration's pictures at least as far from the bank: uniform while uploads are like those.",
        _SHARES,
    ),
    "grey_zone_total": _counter(
        "Pictures that the cheap heads left in the policy's grey zone, or not.", _of("result", "within", "outside")
    ),
    "encoder_out_of_memory_total": _counter("Encoder batches halved because the device was out of memory."),
    "commits_total": _counter(
        "Commits of offsets, or transactions; refused while the group rebalances.", _of("result", "ok", "refused")
    ),
    "rebalances_total": _counter(
        "Partitions given to this worker and taken away.", _of("kind", "assigned", "revoked", "lost")
    ),
    "uploads_forgotten_total": _counter("Unfinished uploads dropped because their partition was revoked."),
    "pauses_total": _counter("Times that nothing more was taken for lack of room."),
    "decoders_ended_total": _counter(
        "Decoder processes that ended and were replaced: over a picture, found dead between two (idle), or worn out "
        "(recycled).",
        _of("reason", "timeout", "crashed", "garbled", "out_of_memory", "idle", "recycled"),
    ),
    "device_jpegs_total": _counter(
        "JPEGs that were left to the encoder's device: decoded there, or refused by it and decoded as ever.",
        _of("result", "decoded", "refused"),
    ),
}

GAUGES: Final[Mapping[GaugeName, Metric]] = {
    "build_info": _gauge(
        "1, with the consumer group of the worker, its version and that of the contract.",
        Label("group", limit=1),
        Label("version", limit=1),
        Label("schema", limit=1),
    ),
    "ready": _gauge("1 while /readyz answers 200."),
    "paused": _gauge("1 while nothing more is taken for lack of room."),
    "draining": _gauge("1 once the worker was told to stop."),
    "in_flight": _gauge("Uploads taken whose outcomes are not acknowledged."),
    "in_flight_bytes": _gauge("Bytes of fetched images that are held."),
    "dead_letters_withheld": _gauge(
        "Dead letters in a row that are not published yet: at the storm limit the worker stops instead."
    ),
    "queue_depth": _gauge("Uploads that wait before a stage.", _QUEUE),
    "encoder_utilisation": _gauge("Share of the last seconds that the encoder was busy, 0 to 1."),
    "consumer_lag": _gauge("Offsets between the end of a partition and the next record to be taken.", *_PARTITION),
    "oldest_uncommitted_seconds": _gauge(
        "Since the oldest upload was taken whose offset is not committed; 0 where there is none.", *_PARTITION
    ),
    "bank_info": _gauge(
        "1, with the bank that judges now, and the consumer group that it judges for.",
        Label("group", limit=1),
        Label("bank", limit=1),
        Label("version", limit=1),
        Label("manifest", limit=1),
    ),
    "bank_refused": _gauge(
        "1 while the announced release is not in use: it was refused, or what is announced cannot be looked up.",
        Label("group", limit=1),
    ),
    "bank_age_seconds": _gauge("Since the bank that judges now was made."),
    "calibration_score_quantile": _gauge(
        "Quantiles of the score among the calibration's reals.", _of("quantile", "0.05", "0.25", "0.5", "0.75", "0.95")
    ),
    "drift_ks": _gauge(
        "Kolmogorov-Smirnov distance between the latest uploads and the calibration, 0 to 1.", _DRIFT_OF
    ),
    "drift_samples": _gauge("How many uploads the drift is taken over.", _DRIFT_OF),
}

BY_NAME: Final[Mapping[str, Metric]] = dict([*MEASURED.items(), *GAUGES.items()])
"""All of them, whatever their kind."""
