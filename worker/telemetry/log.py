"""
The log: how it is set up, and the canonical lines of the flow. It always goes to stderr; stdout belongs to data.

Events are named in the past tense with dots; everything else stands in keys. No line holds image bytes, the query of a
URL or anything of a user: ``worker.telemetry.redaction`` says what may be said, and is applied to every line here.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from schemas.errors import ErrorClass
from schemas.versions import Versions
from worker import __version__
from worker.outcomes import DeadLettered, Deferred, Outcome, Release, VerdictIssued
from worker.redaction import one_line, redact_text, redact_url
from worker.settings.tree import LogSettings
from worker.telemetry.redaction import plain

__all__ = [
    "configure_logging",
    "log_batch_released",
    "log_dead_letter",
    "log_upload_failed",
    "redact_url",
]

SHORT_ID_CHARS: Final = 12
TRACEBACKS: Final = frozenset({"exception", "stack"})
"""Keys whose values keep their line breaks."""
OURS: Final = ("worker", "schemas")

_log = structlog.get_logger("worker.flow")


class _Handler(logging.StreamHandler[TextIO]):
    """
    Writes to a stream; without one, to what ``sys.stderr`` is at the moment of writing, as a test may replace it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream if stream is not None else sys.stderr)
        self._follows_stderr = stream is None
        # A library that sets the level of its own logger would not be held back by the root's.
        self.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.split(".")[0] in OURS)

    def emit(self, record: logging.LogRecord) -> None:
        if self._follows_stderr:
            self.stream = sys.stderr
        super().emit(record)


def configure_logging(settings: LogSettings, *, stream: TextIO | None = None, service: str = "touchstone") -> None:
    """
    Send what we log, and warnings and worse of every library, through one renderer to ``stream`` (by default stderr).

    ``auto`` is the console's form on a terminal, else JSON: one object per line, opening with event, ts (RFC 3339,
    UTC), level, service and version. May be called again; the last call holds. Call it before other threads start.
    """
    target = stream if stream is not None else sys.stderr
    console = settings.format == "console" or (settings.format == "auto" and target.isatty())
    shared = _shared_processors(console)
    handler = _Handler(stream)
    final = _console_form(colors=target.isatty()) if console else _json_form(service)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _scrub, *final],
        )
    )
    _route_standard_logging(handler, settings.level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # a module's logger is made on import, before the settings are known
    )


def log_batch_released(
    releases: Sequence[Release],
    outcomes: Sequence[Outcome],
    *,
    now_s: float | None = None,
    **extra: float | str | None,
) -> None:
    """
    The one line of a released batch: how many of what, from where to where, how old, and by which versions.

    ``oldest_age_ms`` counts from when the worker took an upload to ``now_s`` (seconds since the epoch; the wall clock's
    when not given). Encoder, bank and policy are short ids, several joined by commas; null for dead letters alone.
    """
    verdicts = [outcome.verdict for outcome in outcomes if isinstance(outcome, VerdictIssued)]
    statuses = [verdict.outcome.status for verdict in verdicts]
    now = datetime.now(UTC) if now_s is None else datetime.fromtimestamp(now_s, UTC)
    ages_ms = [(now - verdict.timing.received_at).total_seconds() * 1000 for verdict in verdicts]
    _log.info(
        "batch.released",
        releases=len(releases),
        decided=statuses.count("decided"),
        abstained=statuses.count("abstained"),
        failed=statuses.count("failed"),
        dead_letters=sum(isinstance(outcome, DeadLettered) or _has_letter(outcome) for outcome in outcomes),
        deferred=sum(isinstance(outcome, Deferred) for outcome in outcomes),
        partitions=_offset_ranges(releases),
        oldest_age_ms=round(max(ages_ms), 1) if ages_ms else None,
        **_short_ids([verdict.versions for verdict in verdicts]),
        **extra,
    )


def log_upload_failed(issued: VerdictIssued, trace_id: str | None = None) -> None:
    """
    The one line of an upload that could not be judged; of any other verdict, none.

    ``trace_id`` is that of the trace which leads from the upload to its verdict.
    """
    verdict = issued.verdict
    error = verdict.error
    if error is None:
        return
    level = logging.ERROR if error.error_class is ErrorClass.INTERNAL else logging.WARNING
    fields = {
        "topic": verdict.input.topic,
        "partition": verdict.input.partition,
        "offset": verdict.input.offset,
        "event_id": verdict.input.event_id,
        "content_id_hash": short_hash(verdict.content_id),
        "code": error.code,
        "class": error.error_class,
        "stage": error.stage,
        "detail": redact_text(error.detail),
        "http_status": error.http_status,
        "attempts": error.attempts,
        "dead_letter": issued.letter is not None,
        "trace_id": trace_id,
    }
    _log.log(level, "upload.failed", **fields)


def log_dead_letter(outcome: DeadLettered, trace_id: str | None = None) -> None:
    """
    The one line of a record that is no upload event; ``trace_id`` as in ``log_upload_failed``.
    """
    letter = outcome.dead_letter
    fields = {
        "topic": letter.original.topic,
        "partition": letter.original.partition,
        "offset": letter.original.offset,
        "event_id": letter.event_id,
        "content_id_hash": None if letter.content_id is None else short_hash(letter.content_id),
        "code": letter.error.code,
        "class": letter.error.error_class,
        "stage": letter.error.stage,
        "detail": redact_text(letter.error.detail),
        "trace_id": trace_id,
    }
    _log.warning("event.dead_lettered", **fields)


def _has_letter(outcome: Outcome) -> bool:
    return isinstance(outcome, VerdictIssued) and outcome.letter is not None


def _offset_ranges(releases: Sequence[Release]) -> Mapping[str, tuple[int, int]]:
    ranges: dict[str, tuple[int, int]] = {}
    for release in releases:
        name = f"{release.partition.topic}-{release.partition.number}"
        first, last = ranges.get(name, (release.offset, release.offset))
        ranges[name] = (min(first, release.offset), max(last, release.offset))
    return dict(sorted(ranges.items()))


def _short_ids(versions: Sequence[Versions]) -> Mapping[str, str | None]:
    # Of a batch nearly all verdicts share one value.
    distinct = {id(one): one for one in versions}.values()
    ids = {
        "bank": {f"{one.bank.id}@{one.bank.manifest_sha256[:SHORT_ID_CHARS]}" for one in distinct},
        "policy": {f"{one.policy.id}@{one.policy.sha256[:SHORT_ID_CHARS]}" for one in distinct},
        "encoder": {one.encoder.fingerprint[:SHORT_ID_CHARS] for one in distinct},
    }
    return {name: ",".join(sorted(found)) or None for name, found in ids.items()}


def short_hash(text: str) -> str:
    """
    Enough of a hash to find a platform's asset by, when one has its id; the id itself is the platform's.
    """
    return sha256(text.encode(errors="backslashreplace")).hexdigest()[:SHORT_ID_CHARS]


def _shared_processors(console: bool) -> list[Processor]:
    stamp = structlog.processors.TimeStamper("%H:%M:%S", utc=False, key="ts")
    return [
        structlog.stdlib.add_log_level,
        stamp if console else structlog.processors.TimeStamper("iso", utc=True, key="ts"),
        structlog.processors.StackInfoRenderer(),
        # Here, and not in the console's renderer: that would print the locals of each frame, images among them.
        structlog.processors.format_exc_info,
    ]


def _scrub(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """
    The last line of defence: each value plain and redacted, whoever logged it.
    """
    return {key: _one_line(plain(value), keep_newlines=key in TRACEBACKS) for key, value in event.items()}


def _one_line(value: object, *, keep_newlines: bool) -> object:
    if isinstance(value, str):
        return one_line(value, keep_newlines=keep_newlines)
    if isinstance(value, list):
        return [_one_line(item, keep_newlines=False) for item in value]
    if isinstance(value, dict):
        return {one_line(key): _one_line(item, keep_newlines=False) for key, item in value.items()}
    return value


def _console_form(*, colors: bool) -> Sequence[Processor]:
    return [
        structlog.dev.ConsoleRenderer(
            colors=colors, timestamp_key="ts", exception_formatter=structlog.dev.plain_traceback, pad_event_to=24
        )
    ]


def _json_form(service: str) -> Sequence[Processor]:
    def opening(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        head = {key: event.pop(key, None) for key in ("event", "ts", "level")}
        return {**head, "service": service, "version": __version__, **event}

    return [opening, structlog.processors.JSONRenderer()]


def _route_standard_logging(handler: logging.Handler, level: str) -> None:
    root = logging.getLogger()
    for old in list(root.handlers):
        # Exactly the plain kind that a library's basicConfig leaves behind: a test runner's own handlers stay.
        if type(old) in {_Handler, logging.StreamHandler}:
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(logging.WARNING, logging.getLevelName(level)))
    for ours in OURS:
        logging.getLogger(ours).setLevel(level)
    logging.captureWarnings(capture=True)
