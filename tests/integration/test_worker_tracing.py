"""
A traced worker as a platform sees it: real Kafka headers, spans over OTLP, and a worker that ends in time.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.platform_side import Event, inline, small_jpeg, upload_event
from tests.recorded_spans import TRACE_ID, UPLOAD_SPAN_ID, VENDOR_STATE, a_trace
from tests.span_collector import SpanCollector
from tests.worker_rig import WorkerRig

SPAN_MAKERS = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "worker.telemetry.tracing")

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(400)]


def traced(number: int, *, valid: bool = True) -> Event:
    """
    An upload whose producer traces, or believes so.
    """
    event = upload_event(f"traced-{number}", inline(small_jpeg(number)))
    trace = a_trace(number) if valid else (("traceparent", b"\xff\x00 no trace"), ("tracestate", b"\xfe"))
    return replace(event, headers=(*event.headers, *trace))


def test_a_trace_through_kafka(new_rig: Callable[..., WorkerRig]) -> None:
    """
    From the producer's header through the worker's spans, as the collector got them, to the verdict's header.

    Whoever sends a malformed header gets a verdict like everybody. What ended last is exported before the worker ends.
    """
    with SpanCollector() as collector:
        rig = new_rig().configure("tracing.exporter=otlp", f"tracing.endpoint={collector.endpoint}")
        rig.configure("service.name=traced-worker").create_topics(2)
        worker = rig.start("one")
        worker.until_started()
        reader = rig.reader()
        published = rig.publish([*(traced(number) for number in range(4)), traced(4, valid=False)])
        assert reader.until_answered(published), worker.text()
        assert worker.stop() == 0, worker.text()
        spans = collector.spans
        headers = {outcome.data["content_id"]: dict(outcome.headers) for outcome in reader.outcomes}

    ours = {span.name: span for span in spans if span.trace_id.hex() == TRACE_ID}
    process = ours[f"process {rig.settings.kafka.topics.uploads}"]
    send = ours[f"send {rig.settings.kafka.topics.verdicts}"]
    links = {link.span_id for span in spans if span.name == "judge" for link in span.links}

    assert {"traced-worker"} == collector.services
    assert UPLOAD_SPAN_ID == process.parent_span_id.hex()
    assert process.span_id == send.parent_span_id == ours["fetch"].parent_span_id == ours["decode"].parent_span_id
    assert process.span_id in links
    assert f"00-{TRACE_ID}-{send.span_id.hex()}-01".encode() == headers["traced-0"]["traceparent"]
    assert VENDOR_STATE == headers["traced-0"]["tracestate"]
    assert 5 == len({one["traceparent"] for one in headers.values()})
    assert "tracestate" not in headers["traced-4"]
    assert any(span.name == "commit" for span in spans)


def test_a_collector_that_is_gone_costs_nothing(new_rig: Callable[..., WorkerRig]) -> None:
    """
    Exactly once too, verdicts come and carry their traces, and the worker ends well, within its drain's time.
    """
    with SpanCollector() as collector:
        endpoint = collector.endpoint
    rig = new_rig().configure("tracing.exporter=otlp", f"tracing.endpoint={endpoint}", "flow.drain_timeout_s=10")
    rig.configure("kafka.delivery=exactly_once").create_topics(1)
    worker = rig.start("one")
    worker.until_started()
    reader = rig.reader(isolation_level="read_committed")
    published = rig.publish([traced(number) for number in range(3)])
    assert reader.until_answered(published), worker.text()

    assert worker.stop() == 0, worker.text()
    carried = {dict(outcome.headers)["traceparent"].split(b"-")[1] for outcome in reader.outcomes}
    assert {dict(a_trace(number))["traceparent"].split(b"-")[1] for number in range(3)} == carried


def test_the_untraced_worker_imports_nothing_of_it(
    new_rig: Callable[..., WorkerRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Of all that a whole run imports, from start to drained, nothing makes spans; the headers pass unchanged.

    redis-py imports OpenTelemetry's metrics where it finds them, whatever we do.
    """
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    rig = new_rig().create_topics(1)
    worker = rig.start("one")
    worker.until_started()
    reader = rig.reader()
    published = rig.publish([traced(0)])
    assert reader.until_answered(published), worker.text()
    assert worker.stop() == 0, worker.text()
    imported = {
        line.rpartition("|")[2].strip()
        for line in worker.text(1_000_000).splitlines()
        if line.startswith("import time:")
    }
    (outcome,) = reader.outcomes

    assert {"worker.app", "worker.operation.tracing", "torch"} <= imported
    assert [] == [name for name in imported if name.startswith(SPAN_MAKERS)]
    assert a_trace(0) == tuple(header for header in outcome.headers if header[0].startswith("trace"))
