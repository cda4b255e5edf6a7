"""
``touchstone run``: the worker.
"""

import socket
from uuid import uuid4

import click
import structlog

from worker.cli.draining import drained_by_signals
from worker.cli.options import settings_options
from worker.errors import TouchstoneError, WorkerCrashed
from worker.settings.load import LoadedSettings

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

    try:
        with drained_by_signals(loaded.settings.flow.drain_timeout_s) as on_loop:
            run_worker(loaded.settings, instance_id=instance_id(loaded), on_loop=on_loop)
    except TouchstoneError:
        raise
    except Exception as fault:
        log.exception("worker.crashed", error=type(fault).__name__)
        raise WorkerCrashed(f"unexpected {type(fault).__name__}: {fault}; the log has the traceback") from fault


def instance_id(loaded: LoadedSettings) -> str:
    """
    Who this worker is: as configured, else unique, so that two workers on one host never fence each other.
    """
    service = loaded.settings.service
    return service.instance_id or f"{service.name}-{socket.gethostname()[:32]}-{uuid4().hex[:8]}"
