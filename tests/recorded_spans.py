"""
The spans of one test, through OpenTelemetry's own SDK and its in-memory exporter; also those that never ended.
"""

from collections.abc import Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from schemas.envelope import Trace
from worker.telemetry.tracing import OpenTelemetryTracer

TRACE_ID, UPLOAD_SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VENDOR_STATE = b"congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"


def a_trace(number: int = 0, *, sampled: bool = True) -> Trace:
    """
    The headers of a producer that traces: each number is a trace of its own.
    """
    trace_id = f"{int(TRACE_ID, 16) + number:032x}"
    return (
        ("traceparent", f"00-{trace_id}-{UPLOAD_SPAN_ID}-0{int(sampled)}".encode()),
        ("tracestate", VENDOR_STATE),
    )


class _Counting(SimpleSpanProcessor):
    """
    Also knows what has begun and not ended.
    """

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        super().__init__(exporter)
        self.open: dict[int, str] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """
        It has begun.
        """
        context = span.get_span_context()
        assert context is not None
        self.open[context.span_id] = span.name

    def on_end(self, span: ReadableSpan) -> None:
        """
        It has ended.
        """
        context = span.get_span_context()
        assert context is not None
        del self.open[context.span_id]
        super().on_end(span)


class SpanBook:
    """
    A tracer, and all that it was told.
    """

    def __init__(self, *, sample_ratio: float = 1.0) -> None:
        self._exporter = InMemorySpanExporter()
        self._processor = _Counting(self._exporter)
        self.tracer = OpenTelemetryTracer(
            self._processor, service="touchstone", instance_id="one", sample_ratio=sample_ratio
        )

    @property
    def open(self) -> Sequence[str]:
        """
        The names of the spans that have not ended.
        """
        return list(self._processor.open.values())

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """
        The spans that have ended, in the order of their ends.
        """
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """
        Those of one name.
        """
        return [span for span in self.spans if span.name == name]

    def of_trace(self, trace_id: str) -> dict[str, ReadableSpan]:
        """
        Those of one trace, by their names, of which each must be there once.
        """
        found = [span for span in self.spans if trace_id_of(span) == trace_id]
        assert len(found) == len({span.name for span in found}), [span.name for span in found]
        return {span.name: span for span in found}


def trace_id_of(span: ReadableSpan) -> str:
    """
    32 hex digits.
    """
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}"


def span_id_of(span: ReadableSpan) -> str:
    """
    16 hex digits.
    """
    context = span.get_span_context()
    assert context is not None
    return f"{context.span_id:016x}"


def parent_of(span: ReadableSpan) -> str | None:
    """
    The span id of its parent.
    """
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def links_of(span: ReadableSpan) -> set[str]:
    """
    The span ids of those it is linked to.
    """
    return {f"{link.context.span_id:016x}" for link in span.links}


def attribute(span: ReadableSpan, name: str) -> Any:  # noqa: ANN401 - attributes have any type
    """
    One attribute; None where it has none such.
    """
    return (span.attributes or {}).get(name)
