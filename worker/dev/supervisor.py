"""
The process that stands between us and one server, so that the server ends when we do, however we end.

It runs as a plain script (``python -I supervisor.py DIRECTORY PARENT_PID``) on the standard library alone and imports
nothing of the worker. It obeys JSON lines on stdin and answers each with one on stdout; when stdin ends, or its parent
is gone, it kills the server and removes the directory. The side that talks to it lives in ``supervised.py``.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PARENT_CHECK_S = 0.5
PR_SET_PDEATHSIG = 1


class Supervisor:
    """
    At most one server at a time, in one directory.

    Requests: ``{"start": [argv…]}``, ``{"signal": number}`` and ``{}`` (how is it?). Each answer has ``pid`` (null
    before the first start), ``returncode`` (null while it runs, negative after a signal) and ``error`` (null or text).
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server: subprocess.Popen[bytes] | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """
        What ``request`` asks is done before this returns; it never waits for the server.
        """
        error = None
        if "start" in request:
            error = self._start(request["start"])
        elif "signal" in request and self._server is not None:
            # Popen looks for the exit first, so a number that was given to another process since is never hit.
            self._server.send_signal(request["signal"])
        if self._server is None:
            return {"pid": None, "returncode": None, "error": error}
        return {"pid": self._server.pid, "returncode": self._server.poll(), "error": error}

    def end(self) -> None:
        """
        The server is dead and reaped, and its directory is gone.
        """
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self, argv: list[str]) -> str | None:
        if self._server is not None and self._server.poll() is None:
            return f"process {self._server.pid} still runs"
        try:
            with (self._directory / "server.out").open("ab") as output:
                self._server = subprocess.Popen(  # noqa: S603 - the argv comes from our own parent, not from a user
                    argv,
                    cwd=self._directory,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    preexec_fn=die_with_supervisor,  # noqa: PLW1509 - this process has one thread
                )
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)
        return None


def die_with_supervisor() -> None:
    """
    The server, about to be executed, is killed by the kernel should this supervisor itself be killed (Linux only).

    The tie is to the *thread* that forks. That is why it is made here, in a process whose only thread is its main
    thread, and not in the process that asked, where the asking thread may end long before the server should.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def requests(parent_pid: int) -> Iterator[dict[str, Any]]:
    """
    What the parent asks, one JSON object per line, until it closes the pipe or is gone.

    The parent is also checked by its process id: a child that it forked without exec (multiprocessing does) holds a
    copy of the pipe's other end and would keep it open.
    """
    pending = b""
    while os.getppid() == parent_pid:
        readable, _, _ = select.select([0], [], [], PARENT_CHECK_S)
        if not readable:
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            return
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)


def main() -> None:
    """
    Requests are answered until there is nobody left to ask; then everything is cleaned away.
    """
    supervisor = Supervisor(Path(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        for request in requests(int(sys.argv[2])):
            os.write(1, json.dumps(supervisor.answer(request)).encode() + b"\n")
    except BrokenPipeError:
        pass  # the parent died between asking and reading the answer
    finally:
        # A second SIGTERM must not leave the directory behind.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        supervisor.end()


if __name__ == "__main__":
    main()
