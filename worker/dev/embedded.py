"""
One server of our own: started, probed until it answers, stopped, killed, restarted on its port, and cleaned away.

What is the same for Kafka and Redis lives here; how each is configured lives in ``kafka_server.py`` and
``redis_server.py``, and what ends it with this process in ``supervised.py``.
"""

import secrets
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from worker.dev.supervised import POLL_S, ServerEnded, ServerStatus, SupervisedProcess
from worker.errors import CannotStart

LOOPBACK = "127.0.0.1"
# Below the range from which Linux gives ports to outgoing connections: a client that keeps knocking at a stopped
# server's port could otherwise be given that very port, connect to itself, and so keep the server from coming back.
PORTS = range(20_000, 32_000)
START_ATTEMPTS = 3
STOP_DEADLINE_S = 30.0


class NotReady(CannotStart):
    """
    The server does not answer, or does not answer yet.
    """


class EmbeddedServer(ABC):
    """
    A real server on a free port of 127.0.0.1, in a temporary directory of its own, ending with this process.

    As a context manager it is running inside and gone after. ``stop`` and ``kill`` keep port and directory, so that
    ``start`` (or ``restart``) brings the same server back. Raises ``CannotStart`` where it does not come up.
    """

    name: ClassVar[str]
    start_deadline_s: ClassVar[float] = 60.0

    def __init__(self) -> None:
        self._process: SupervisedProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def directory(self) -> Path:
        """
        Where the server keeps its data and logs.
        """
        return self._started().directory

    @property
    def pid(self) -> int:
        """
        The process id of the server that was started last.
        """
        pid = self._started().status().pid
        if pid is None:
            raise CannotStart(f"{self.name} has not been started; call start().")
        return pid

    def start(self) -> None:
        """
        The server answers a client of its own kind; on the port and data it had, if it was stopped before.
        """
        if self._process is not None:
            self._launch(self._process)
            return
        for attempt in range(1, START_ATTEMPTS + 1):
            process = self._process = SupervisedProcess(self.name)
            try:
                self._prepare(process)
                self._launch(process)
            except BaseException as error:
                self.close()
                # Somebody took our port between looking and listening.
                if "Address already in use" in str(error) and attempt < START_ATTEMPTS:
                    continue
                raise
            return

    def stop(self) -> None:
        """
        The server has ended in its own orderly way.
        """
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """
        The server is gone as if the power had failed.
        """
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """
        The server was stopped in order and answers again, on the same port.
        """
        self.stop()
        self.start()

    def check(self) -> None:
        """
        The server runs; otherwise ``ServerEnded`` says how it ended.
        """
        process = self._started()
        self._require_running(process, process.status())

    def close(self) -> None:
        """
        Nothing of the server is left; ``start`` would make a new one elsewhere.
        """
        if self._process is not None:
            process, self._process = self._process, None
            process.close()

    @abstractmethod
    def _prepare(self, process: SupervisedProcess) -> None:
        """
        Ports are chosen, and what the server needs lies in its directory.
        """

    @abstractmethod
    def _argv(self, process: SupervisedProcess) -> Sequence[str]:
        """
        The command that runs the server in the foreground.
        """

    @abstractmethod
    def _probe(self, status: ServerStatus) -> None:
        """
        A client was answered by this very process, else ``NotReady``: whoever took our port may answer in its place.
        """

    def _launch(self, process: SupervisedProcess) -> None:
        process.start(self._argv(process))
        deadline = time.monotonic() + self.start_deadline_s
        while True:
            status = process.status()
            self._require_running(process, status)
            try:
                return self._probe(status)
            except NotReady as error:
                if time.monotonic() > deadline:
                    raise CannotStart(
                        f"{self.name} runs but gave no right answer within {self.start_deadline_s:.0f} s ({error}). "
                        f"Its last lines:\n{process.log_tail()}"
                    ) from error
            time.sleep(POLL_S)

    def _require_running(self, process: SupervisedProcess, status: ServerStatus) -> None:
        if not status.running:
            raise ServerEnded(
                f"{self.name} ended by itself with exit status {status.returncode}; its last lines:\n"
                f"{process.log_tail()}"
            )

    def _end(self, number: signal.Signals) -> None:
        process = self._started()
        process.signal(number)
        if process.wait(STOP_DEADLINE_S).running:
            raise CannotStart(
                f"{self.name} still runs {STOP_DEADLINE_S:.0f} s after {number.name}; call kill() instead. "
                f"Its last lines:\n{process.log_tail()}"
            )

    def _started(self) -> SupervisedProcess:
        if self._process is None:
            raise CannotStart(f"{self.name} has not been started, or was closed; call start().")
        return self._process


def free_port() -> int:
    """
    A port of 127.0.0.1 on which nobody listens now.
    """
    for _ in range(200):
        port = PORTS[secrets.randbelow(len(PORTS))]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise CannotStart(f"Found no free port between {PORTS.start} and {PORTS.stop} on {LOOPBACK}; free some and retry.")
