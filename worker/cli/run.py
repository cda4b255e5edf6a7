"""
``touchstone run``: the worker.
"""

import os
import signal
import socket
import threading
from types import FrameType
from uuid import uuid4

import click
import structlog

from worker.cli.options import settings_options
from worker.errors import EXIT_CRASHED, TouchstoneError, WorkerCrashed
from worker.settings.load import LoadedSettings

LAST_GRACE_S = 2.0
"""What a drain may last beyond its time: clients that are closed while their broker hangs wait a little."""

log = structlog.get_logger(__name__)


@click.command()
@settings_options
def run(loaded: LoadedSettings) -> None:
    """
    Consume upload events, judge them, publish verdicts, until SIGTERM or SIGINT.

    The first signal drains within flow.drain_timeout_s, commits and leaves with exit code 0, or with 4 if a broker that
    hangs does not let it; a second one leaves at once, without a commit, with 130 or 143. What was not committed is
    read again by whoever comes next.
    """
    from worker.app import run_worker  # noqa: PLC0415 - torch takes seconds to import; --help must not
    from worker.flow.loop import Loop  # noqa: PLC0415 - likewise

    loops: list[Loop] = []
    signals: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) > 1:
            os._exit(128 + number)
        for loop in loops:
            loop.drain()
        _leave_in_time(loaded.settings.flow.drain_timeout_s)

    def on_loop(loop: Loop) -> None:
        loops.append(loop)
        if signals:
            loop.drain()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        run_worker(loaded.settings, instance_id=instance_id(loaded), on_loop=on_loop)
    except TouchstoneError:
        raise
    except Exception as fault:
        log.exception("worker.crashed", error=type(fault).__name__)
        raise WorkerCrashed(f"unexpected {type(fault).__name__}: {fault}; the log has the traceback") from fault


def _leave_in_time(drain_timeout_s: float) -> None:
    """
    End the process when the drain is not over in time, because a broker that hangs holds the consumer's thread.

    The exit code says that it broke; nothing unfinished was committed.
    """

    def leave() -> None:
        log.error("worker.drain_timed_out", timeout_s=drain_timeout_s)
        os._exit(EXIT_CRASHED)

    watch = threading.Timer(drain_timeout_s + LAST_GRACE_S, leave)
    watch.daemon = True
    watch.start()


def instance_id(loaded: LoadedSettings) -> str:
    """
    Who this worker is: as configured, else unique, so that two workers on one host never fence each other.
    """
    service = loaded.settings.service
    return service.instance_id or f"{service.name}-{socket.gethostname()[:32]}-{uuid4().hex[:8]}"
