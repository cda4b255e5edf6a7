"""
The pipeline over files, as `touchstone scan` runs it: no Kafka, no Redis, verdicts as lines. Part of the root.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from worker.adapters.file_source import FileSource
from worker.adapters.image_store import build_image_store
from worker.adapters.line_outbox import LineOutbox
from worker.adapters.system_clock import SystemClock
from worker.app import build_loop, running_pipeline
from worker.decoding.process_decoder import close_decoder
from worker.flow.loop import LoopReport
from worker.instruments import open_instruments
from worker.outcomes import Message
from worker.settings.tree import Settings
from worker.telemetry.metrics import InMemoryRecorder


def scan_files(
    settings: Settings, files: Sequence[Path], *, surface: str | None, write: Callable[[Message], None]
) -> LoopReport:
    """
    The same pipeline over files: one message per file, in their order, handed to ``write`` as it is released.

    No Kafka and no Redis. Raises what open_instruments raises, and what broke.
    """
    recorder = InMemoryRecorder()
    clock = SystemClock()
    instruments = open_instruments(settings, recorder)
    # Whoever can type the command may read the files it names; no event can.
    store = build_image_store(settings.fetch.model_copy(update={"file_root": Path("/")}), recorder)
    source = FileSource(files, surface=surface, clock=clock)
    at_least_once = settings.model_copy(
        update={"kafka": settings.kafka.model_copy(update={"delivery": "at_least_once"})}
    )
    versions = instruments.versions("scan")
    with running_pipeline(settings, instruments, versions, store=store, recorder=recorder) as pipeline:
        loop = build_loop(at_least_once, source, LineOutbox(write), pipeline, recorder=recorder)
        report = loop.run()
    store.close()
    close_decoder(instruments.decoder)
    return report
