"""
Our side of one supervised process: its directory, and the pipe to the supervisor that ends it with us.

The other side is the script ``supervisor.py``. What makes such a process a Kafka or a Redis lives in ``embedded.py``.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.errors import CannotStart

POLL_S = 0.02
CLOSE_DEADLINE_S = 30.0
LOG_TAIL_LINES = 20
# These would change, or add noise to, every Java process that we start.
JAVA_VARIABLES = frozenset({"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH"})


class ServerEnded(CannotStart):
    """
    The server ended by itself; the message carries the end of its logs.
    """


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """
    The latest process of a server: ``pid`` is None before the first start, ``returncode`` None while it runs.
    """

    pid: int | None
    returncode: int | None

    @property
    def running(self) -> bool:
        """
        Whether there is a process and it has not ended.
        """
        return self.pid is not None and self.returncode is None


class SupervisedProcess:
    """
    Our end of the pipe to a supervisor, and the temporary directory which it removes at the end.

    May be used from any thread, and the thread that made it may end. A server left behind by SIGKILL goes within a
    second. Known hole: SIGKILL to both us and the supervisor in one instant leaves the directory, though no process.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = Path(tempfile.mkdtemp(prefix=f"touchstone-{name.lower()}-"))
        self._asking = threading.Lock()
        script = Path(__file__).with_name("supervisor.py")
        # A session of its own: Ctrl-C in a terminal reaches us, and we stop the servers when we no longer need them.
        self._supervisor = subprocess.Popen(  # noqa: S603 - our own script under our own interpreter
            [sys.executable, "-I", str(script), str(self.directory), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name not in JAVA_VARIABLES},
        )

    def start(self, argv: Sequence[str]) -> ServerStatus:
        """
        ``argv`` runs in the directory, its output going to ``server.out`` there; nothing else runs yet.
        """
        return self._ask({"start": list(argv)})

    def signal(self, number: signal.Signals) -> ServerStatus:
        """
        The process has been sent ``number``, if it still runs.
        """
        return self._ask({"signal": int(number)})

    def status(self) -> ServerStatus:
        """
        How the process is now.
        """
        return self._ask({})

    def wait(self, deadline_s: float) -> ServerStatus:
        """
        How the process ended, or how it is after ``deadline_s`` seconds.
        """
        deadline = time.monotonic() + deadline_s
        while (status := self.status()).running and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return status

    def log_tail(self) -> str:
        """
        The last lines of everything the server wrote, for an error message.
        """
        files = sorted([*self.directory.glob("*.out"), *self.directory.glob("*.log")])
        lines = [line for file in files for line in file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]]
        return "\n".join(f"  {line}" for line in lines) or "  (it wrote nothing)"

    def close(self) -> None:
        """
        The server is killed, its supervisor gone, and the directory removed.
        """
        if self._supervisor.stdin is not None:
            self._supervisor.stdin.close()
        try:
            self._supervisor.wait(CLOSE_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()  # the kernel kills the server with it
            self._supervisor.wait()
        if self._supervisor.stdout is not None:
            self._supervisor.stdout.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _ask(self, request: dict[str, object]) -> ServerStatus:
        with self._asking:
            answer = self._exchange(json.dumps(request).encode() + b"\n")
        if answer["error"] is not None:
            raise CannotStart(f"Cannot start {self.name}: {answer['error']}.")
        return ServerStatus(answer["pid"], answer["returncode"])

    def _exchange(self, line: bytes) -> dict[str, Any]:
        pipe, answers = self._supervisor.stdin, self._supervisor.stdout
        if pipe is not None and answers is not None and not pipe.closed:
            try:
                pipe.write(line)
                pipe.flush()
                if line := answers.readline():
                    answer: dict[str, Any] = json.loads(line)
                    return answer
            except BrokenPipeError:
                pass
        raise ServerEnded(f"The process that guards {self.name} has ended, and {self.name} with it; start it again.")
