"""
A collector of spans: OTLP over HTTP as OpenTelemetry's exporter speaks it, all kept in memory.
"""

import gzip
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class SpanCollector:
    """
    Listens on a free port of this machine while its block lasts.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._spans: list[Span] = []
        self._services: set[str] = set()
        take = self._take

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint(self) -> str:
        """
        What to set as ``tracing.endpoint``.
        """
        return f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    @property
    def spans(self) -> list[Span]:
        """
        All that was exported so far.
        """
        with self._changed:
            return list(self._spans)

    @property
    def services(self) -> set[str]:
        """
        The names of the services that exported.
        """
        with self._changed:
            return set(self._services)

    def until(self, condition: Callable[[list[Span]], bool], deadline_s: float) -> bool:
        """
        Whether the spans came to be so in time.
        """
        with self._changed:
            return self._changed.wait_for(lambda: condition(self._spans), deadline_s)

    def _take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._changed:
            for resource in request.resource_spans:
                named = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
                self._services.add(named["service.name"])
                for scope in resource.scope_spans:
                    self._spans += scope.spans
            self._changed.notify_all()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
