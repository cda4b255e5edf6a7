"""
Tracing as the settings have it: what is imported, what is missing, where spans go and how long their export may take.
"""

import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import get_args

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tests.recorded_log import lines_of, log_undone
from tests.recorded_spans import SpanBook, a_trace, attribute
from tests.settings_layers import load
from worker.errors import CannotStart, ProducerFenced
from worker.flow.upload_spans import carried_by, carrying, trace_id_of
from worker.operation.tracing import configured_tracing
from worker.outcomes import Message
from worker.settings.tree import LogSettings
from worker.spans import UNTOLD, UNTRACED, Kind
from worker.telemetry.log import configure_logging
from worker.telemetry.tracing import OpenTelemetryTracer, in_batches

WIRING = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"opentelemetry", "google"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refusing())
import worker.app
import worker.cli.run
from worker.errors import CannotStart
from worker.operation.tracing import configured_tracing
from worker.settings.load import load_settings
from worker.spans import UNTRACED

def settings(*sets):
    return load_settings(config=None, overlay=None, environ={}, sets=sets).settings

with configured_tracing(settings(), instance_id="one") as tracing:
    assert tracing.tracer is UNTRACED
    source, outbox = object(), object()
    assert tracing.source(source) is source and tracing.outbox(outbox) is outbox
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
try:
    with configured_tracing(settings("tracing.exporter=console"), instance_id="one"):
        pass
except CannotStart as refused:
    print(refused)
"""


def test_without_tracing_opentelemetry_need_not_be_there() -> None:
    """
    What ``touchstone run`` wires imports nothing of it; asked for spans, it says what to install.
    """
    done = subprocess.run([sys.executable, "-c", WIRING], capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stderr)
    assert "opentelemetry is not installed" in done.stdout
    assert "pip install 'touchstone-worker[tracing]'" in done.stdout


class Stuck(SpanExporter):
    """
    A collector that never answers, until it is let go.
    """

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.asked = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """
        Wait.
        """
        self.asked.set()
        self.go_on.wait(60)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """
        Wait, too.
        """
        self.go_on.wait(60)


def a_message(trace: tuple[tuple[str, bytes], ...]) -> Message:
    """
    A message with an attribute of its own.
    """
    return Message("verdicts", None, b"{}", (("ce_id", b"1"), *trace), 0)


def test_a_stuck_collector_does_not_keep_the_worker() -> None:
    """
    Closing returns when its time is up, and the log says that spans were left behind.
    """
    stuck, stream = Stuck(), io.StringIO()
    tracer = OpenTelemetryTracer(in_batches(stuck), service="t", instance_id="one", sample_ratio=1.0)
    with log_undone():
        configure_logging(LogSettings(format="json", level="info"), stream=stream)
        tracer.start("process uploads").finish()
        began_s = time.monotonic()
        tracer.close(0.2)
        took_s = time.monotonic() - began_s
    stuck.go_on.set()

    assert 0.2 <= took_s < 30
    assert stuck.asked.is_set()
    assert [("spans.left_behind", 0.2)] == [(line["event"], line["waited_s"]) for line in lines_of(stream)]


def test_closing_exports_what_has_ended() -> None:
    """
    Nobody waits for the next round of the export.
    """
    stuck = Stuck()
    stuck.go_on.set()
    tracer = OpenTelemetryTracer(in_batches(stuck), service="t", instance_id="one", sample_ratio=1.0)
    tracer.start("process uploads").finish()
    tracer.close(30)

    assert stuck.asked.is_set()


def test_the_console_has_one_object_per_span_and_line(capsys: pytest.CaptureFixture[str]) -> None:
    """
    On standard error, with the service's name; standard output stays empty.
    """
    settings = load(sets=["tracing.exporter=console", "service.name=moderation"]).settings
    with log_undone():
        configure_logging(LogSettings(format="console"))
        with configured_tracing(settings, instance_id="w-1") as tracing:
            for name in ("fetch", "decode"):
                tracing.tracer.start(name).finish()
    out, err = capsys.readouterr()
    spans = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    named = spans[0]["resource"]["attributes"]

    assert "" == out
    assert ["fetch", "decode"] == [span["name"] for span in spans]
    assert ("moderation", "w-1") == (named["service.name"], named["service.instance.id"])


def test_a_missing_exporter_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The SDK alone does not bring the way to a collector.
    """
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    settings = load(sets=["tracing.exporter=otlp"]).settings
    with pytest.raises(CannotStart) as refused, configured_tracing(settings, instance_id="one"):
        pass

    assert "trace_exporter is not installed" in str(refused.value)
    assert "touchstone-worker[tracing]" in str(refused.value)


def test_untraced_spans_are_all_the_same_one() -> None:
    """
    Nothing is made for an upload that nobody traces.
    """
    with UNTRACED.start("fetch", UNTOLD) as span:
        span.set("touchstone.status", "decided")
        span.fail("INTERNAL")
        span.finish("forgotten")

    assert span is UNTOLD is UNTRACED.gather("encode", [span])
    assert () == span.headers


def test_a_message_carries_one_trace() -> None:
    """
    The other headers stay, in their order; without a trace the message is the same.
    """
    message = a_message(a_trace(0))
    carried = carrying(message, a_trace(1)[:1])

    assert (("ce_id", b"1"), a_trace(1)[0]) == carried.headers
    assert a_trace(1)[:1] == carried_by(carried)
    assert message is carrying(message, ())


@pytest.mark.parametrize(
    "malformed", [b"", b"00", b"00-" + b"g" * 32 + b"-b7ad6b7169203331-01", b"00-" + b"a" * 32 + b"-b7ad6b7169203331"]
)
def test_the_log_names_only_a_trace_that_is_one(malformed: bytes) -> None:
    """
    No text of a producer reaches the log as a trace id.
    """
    assert trace_id_of(a_message((("traceparent", malformed),))) is None
    assert trace_id_of(a_message(())) is None


def test_ends_count_once_and_faults_are_told_by_name() -> None:
    """
    A second end, or a word after it, changes nothing; a fault that ends the worker is told by its name.
    """
    book = SpanBook()
    span = book.tracer.start("send verdicts")
    with pytest.raises(ProducerFenced), span:
        raise ProducerFenced("taken over: https://user:secret@broker")
    span.fail("LATER")
    span.set("later", 1)
    span.finish("later")
    (told,) = book.spans

    assert "ProducerFenced" == told.status.description == attribute(told, "error.type")
    assert (None, ()) == (attribute(told, "later"), tuple(told.events))
    assert "secret" not in told.to_json()


def test_attributes_are_redacted_as_in_the_log() -> None:
    """
    An event id that is a signed URL loses its query.
    """
    book = SpanBook()
    with book.tracer.start("process uploads") as span:
        span.set("cloudevents.event_id", "https://cdn.example/a.jpg?signature=1")
    (told,) = book.spans

    assert "https://cdn.example/a.jpg" == attribute(told, "cloudevents.event_id")


def test_every_kind_can_be_told() -> None:
    """
    No kind of the port is missing in the adapter.
    """
    book = SpanBook()
    for kind in get_args(Kind):
        book.tracer.start("any", kind=kind).finish()

    assert list(get_args(Kind)) == [span.kind.name.lower() for span in book.spans]


def test_more_links_than_opentelemetry_allows_by_default() -> None:
    """
    A search batch of 256 is linked to all of its uploads.
    """
    book = SpanBook()
    uploads = [book.tracer.start("process uploads") for _ in range(256)]
    book.tracer.gather("judge", uploads).finish()

    assert 256 == len(book.named("judge")[0].links)
