"""
Spans through OpenTelemetry; the one place that knows its libraries.

Where spans go to is chosen in ``worker/operation/tracing.py``; what they are about, in ``worker/flow``. Baggage is not
read: it is text of whoever called, and no business of ours.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import structlog
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, TraceState, set_span_in_context
from opentelemetry.trace import Span as OpenTelemetrySpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from schemas.errors import ErrorCode
from worker import __version__
from worker.errors import TouchstoneError, UploadFailed
from worker.flow.crew import Crew
from worker.redaction import redact_text
from worker.spans import UNTOLD, Attribute, Kind, Span, TraceHeaders

MAX_LINKS: Final = 1024
"""More than a search batch has uploads; OpenTelemetry's own default is less."""

MAX_WAITING: Final = 16_384
"""Spans that wait for their export; what does not fit is dropped, and OpenTelemetry warns of it in the log."""

EXPORT_EVERY_MS: Final = 1000
EXPORT_TOGETHER: Final = 512

_KINDS: Final[Mapping[Kind, SpanKind]] = {
    "internal": SpanKind.INTERNAL,
    "consumer": SpanKind.CONSUMER,
    "producer": SpanKind.PRODUCER,
    "client": SpanKind.CLIENT,
}
MAX_TRACEPARENT_CHARS: Final = 512

log = structlog.get_logger(__name__)

_W3C: Final = TraceContextTextMapPropagator()
_NO_PARENT: Final = Context()


class ToldSpan:
    """
    Implements ``worker.spans.Span``. Faults are told by their code and type, never by their text, which may hold a URL.
    """

    __slots__ = ("_span",)

    def __init__(self, span: OpenTelemetrySpan) -> None:
        self._span = span

    @property
    def told(self) -> OpenTelemetrySpan:
        """
        OpenTelemetry's own.
        """
        return self._span

    @property
    def headers(self) -> TraceHeaders:
        """
        ``traceparent`` with this span as the parent, recorded or not, and the ``tracestate`` that came with its trace.
        """
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, set_span_in_context(self._span, _NO_PARENT))
        return tuple((name, value.encode()) for name, value in carrier.items())

    def set(self, name: str, value: Attribute) -> None:
        """
        Said while it lasts; of text what the log would say.
        """
        if self._span.is_recording():
            self._span.set_attribute(name, redact_text(value) if isinstance(value, str) else value)

    def fail(self, code: str) -> None:
        """
        Status ERROR with the code.
        """
        if self._span.is_recording():
            self._span.set_status(Status(StatusCode.ERROR, str(code)))
            self._span.set_attribute("error.type", str(code))

    def finish(self, event: str | None = None) -> None:
        """
        End, once.
        """
        if self._span.is_recording():
            if event is not None:
                self._span.add_event(event)
            self._span.end()

    def __enter__(self) -> Self:
        """
        Itself.
        """
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, stack: TracebackType | None
    ) -> None:
        """
        Finish; of a fault its code, its name where it ends the worker, or INTERNAL where nobody foresaw it.
        """
        if fault is not None:
            self.fail(_code_of(fault))
        self.finish()


class OpenTelemetryTracer:
    """
    Implements ``worker.spans.Tracer``, with a provider of its own: nothing global is set or read.
    """

    def __init__(self, processor: SpanProcessor, *, service: str, instance_id: str, sample_ratio: float) -> None:
        """
        ``sample_ratio`` of the traces that begin here are recorded; of others, those that their beginning chose.
        """
        identity = {"service.name": service, "service.version": __version__, "service.instance.id": instance_id}
        self._provider = TracerProvider(
            sampler=_WithItsUploads(ParentBased(TraceIdRatioBased(sample_ratio))),
            resource=Resource.create(identity),
            span_limits=SpanLimits(max_links=MAX_LINKS),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        # It would warn, in the producer's words, of each record whose tracestate is malformed.
        logging.getLogger("opentelemetry.trace.span").setLevel(logging.ERROR)
        self._tracer = self._provider.get_tracer("touchstone", __version__)

    def start(
        self,
        name: str,
        parent: Span | TraceHeaders = (),
        *,
        kind: Kind = "internal",
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Span:
        """
        Begin a span; one that is not sampled is carried on, but not recorded.
        """
        context = _context_of(parent)
        return ToldSpan(self._tracer.start_span(name, context, _KINDS[kind], attributes))

    def gather(self, name: str, of: Sequence[Span]) -> Span:
        """
        Begin a span linked to those of ``of`` that are recorded; where none is, nothing is.
        """
        told = [span.told.get_span_context() for span in of if isinstance(span, ToldSpan)]
        links = [Link(context) for context in told if context.trace_flags.sampled]
        if not links:
            return UNTOLD
        span = self._tracer.start_span(name, _NO_PARENT, links=links, attributes={"touchstone.batch_size": len(of)})
        return ToldSpan(span)

    def close(self, timeout_s: float) -> None:
        """
        Export what has ended, for at most ``timeout_s``; OpenTelemetry itself would take what time it likes.
        """
        crew = Crew()
        crew.start("export-spans", self._provider.shutdown)
        if crew.join(timeout_s):
            log.warning("spans.left_behind", waited_s=round(timeout_s, 3))


class _WithItsUploads(Sampler):
    """
    What is linked is recorded, as ``gather`` links only what is; of all else ``others`` decides.
    """

    def __init__(self, others: Sampler) -> None:
        self._others = others

    def should_sample(  # noqa: PLR0917 - OpenTelemetry's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """
        The decision on a span that is about to begin.
        """
        if links:
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state)
        return self._others.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """
        For OpenTelemetry's own messages.
        """
        return f"WithItsUploads{{{self._others.get_description()}}}"


def in_batches(exporter: SpanExporter) -> SpanProcessor:
    """
    Exports on a thread of its own, every second or when enough has come together.
    """
    return BatchSpanProcessor(
        exporter,
        max_queue_size=MAX_WAITING,
        schedule_delay_millis=EXPORT_EVERY_MS,
        max_export_batch_size=EXPORT_TOGETHER,
    )


def to_console() -> SpanExporter:
    """
    One JSON object per span and line on standard error; standard output belongs to data.
    """
    return ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: f"{span.to_json(indent=None)}\n")


def to_collector(endpoint: str | None) -> SpanExporter:
    """
    OTLP over HTTP; without an endpoint OpenTelemetry's own variables and defaults hold.

    Raises ``ImportError`` where the exporter is not installed.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - a distribution of its own
        OTLPSpanExporter,
    )

    return OTLPSpanExporter(endpoint=endpoint)


def _code_of(fault: BaseException) -> str:
    if isinstance(fault, UploadFailed):
        return fault.code
    return type(fault).__name__ if isinstance(fault, TouchstoneError) else ErrorCode.INTERNAL


def _context_of(parent: Span | TraceHeaders) -> Context:
    if isinstance(parent, ToldSpan):
        return set_span_in_context(parent.told, _NO_PARENT)
    if not isinstance(parent, tuple):
        return _NO_PARENT
    # A longer one is none; OpenTelemetry says so too, but with a warning for each.
    carrier = {name: value.decode("ascii", "replace") for name, value in parent}
    if len(carrier.get("traceparent", "")) > MAX_TRACEPARENT_CHARS:
        return _NO_PARENT
    return _W3C.extract(carrier, _NO_PARENT)
