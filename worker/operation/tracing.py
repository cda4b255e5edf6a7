"""
Tracing, as the settings have it. With ``tracing.exporter = "none"`` nothing of OpenTelemetry is imported.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from worker.errors import CannotStart
from worker.ports import EventSource, Outbox
from worker.settings.operations import TracingSettings
from worker.settings.tree import Settings
from worker.spans import UNTRACED, Tracer
from worker.telemetry.traced_delivery import TracedOutbox, TracedSource

if TYPE_CHECKING:
    from worker.telemetry.tracing import OpenTelemetryTracer

log = structlog.get_logger(__name__)

EXPORT_S = 1.0
"""How long the last spans may take where nobody says how much time is left."""


class Tracing:
    """
    A worker's tracer, and what surrounds its source and its outbox.

    ``time_left_s`` tells how long the last spans may take to be exported, when it comes to that.
    """

    def __init__(self, tracer: Tracer = UNTRACED) -> None:
        self.tracer = tracer
        self.time_left_s: Callable[[], float] = lambda: EXPORT_S
        self._outbox: TracedOutbox | None = None

    def source(self, source: EventSource) -> EventSource:
        """
        The source, its commits traced.
        """
        return source if self.tracer is UNTRACED else TracedSource(source, self.tracer)

    def outbox(self, outbox: Outbox) -> Outbox:
        """
        The outbox, its messages traced.
        """
        if self.tracer is UNTRACED:
            return outbox
        self._outbox = TracedOutbox(outbox, self.tracer)
        return self._outbox

    def end(self) -> None:
        """
        End the spans of messages whose acknowledgement nobody waits for any more.
        """
        if self._outbox is not None:
            self._outbox.end_all()


@contextmanager
def configured_tracing(settings: Settings, *, instance_id: str) -> Iterator[Tracing]:
    """
    Tracing from here to the end of the block, when the last spans are exported. Nothing may begin spans after it.

    Raises ``CannotStart`` when what the settings ask for is not installed.
    """
    if settings.tracing.exporter == "none":
        yield Tracing()
        return
    tracer = _open(settings.tracing, service=settings.service.name, instance_id=instance_id)
    tracing = Tracing(tracer)
    log.info("tracing.started", exporter=settings.tracing.exporter, sample_ratio=settings.tracing.sample_ratio)
    try:
        yield tracing
    finally:
        tracing.end()
        tracer.close(max(0.0, tracing.time_left_s()))


def _open(settings: TracingSettings, *, service: str, instance_id: str) -> "OpenTelemetryTracer":
    try:
        from worker.telemetry import tracing  # noqa: PLC0415 - only where spans are wanted

        exporter = tracing.to_console() if settings.exporter == "console" else tracing.to_collector(settings.endpoint)
    except ImportError as missing:
        raise CannotStart(
            f"tracing.exporter is {settings.exporter!r}, but {missing.name or 'OpenTelemetry'} is not installed. "
            "Install it with: pip install 'touchstone-worker[tracing]', or set tracing.exporter = \"none\"."
        ) from missing
    return tracing.OpenTelemetryTracer(
        tracing.in_batches(exporter), service=service, instance_id=instance_id, sample_ratio=settings.sample_ratio
    )
