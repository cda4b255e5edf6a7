"""
The servers that we bring ourselves end with whoever started them, however that one ends.

Each test starts them in a process of its own, ends that process in one way, and then looks for what is left.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis

from tests.servers import eventually
from worker.dev.probes import ask_kafka

pytestmark = pytest.mark.servers

REPORT = """
def report(*servers):
    print(json.dumps([
        {"pid": server.pid, "supervisor": server._process._supervisor.pid, "directory": str(server.directory)}
        for server in servers
    ]), flush=True)
"""
KAFKA_AND_REDIS = """
with EmbeddedKafka() as kafka, EmbeddedRedis() as redis:
    report(kafka, redis)
    signal.pause()
"""
REDIS = """
with EmbeddedRedis() as redis:
    report(redis)
    signal.pause()
"""
REDIS_AND_FORKED_CHILD = """
with EmbeddedRedis() as redis:
    if (child := os.fork()) == 0:
        signal.pause()
    report(redis)
    print(child, flush=True)
    signal.pause()
"""
REDIS_STARTED_BY_A_THREAD = """
redis = EmbeddedRedis()
starter = threading.Thread(target=redis.start)
starter.start()
starter.join()
report(redis)
signal.pause()
"""
FOREGROUND = "run_in_foreground(lambda line: print(line, flush=True))"


@dataclass(frozen=True, slots=True)
class Left:
    """
    What one server of the ended process may have left: two processes and a directory.
    """

    pid: int
    supervisor: int
    directory: str

    def gone(self) -> bool:
        """
        Neither process lives and the directory does not exist.
        """
        return not alive(self.pid) and not alive(self.supervisor) and not Path(self.directory).exists()


def alive(pid: int) -> bool:
    """
    Whether the process exists and is more than an exit status that nobody has collected yet.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


@pytest.fixture
def start_owner() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """
    Starts a Python process with the given code, and sees to it that none is left after the test.
    """
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        program = (
            "import json, os, signal, threading\n"
            "from worker.dev.kafka_server import EmbeddedKafka\n"
            "from worker.dev.redis_server import EmbeddedRedis\n"
            "from worker.dev.servers import run_in_foreground\n"
            f"{REPORT}\n{code}"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PATH": ""},  # neither java, mvn nor redis-server: the packages alone
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def line_from(owner: subprocess.Popen[str]) -> str:
    """
    The next line that the process prints; an error once it has ended.
    """
    assert owner.stdout is not None
    line = owner.stdout.readline()
    assert line.endswith("\n"), "the process ended; its standard error says why"
    return line.strip()


def reported(owner: subprocess.Popen[str]) -> list[Left]:
    """
    What the process says it started, all of which lives now.
    """
    started = [Left(**server) for server in json.loads(line_from(owner))]
    assert all(alive(server.pid) and Path(server.directory).is_dir() for server in started)
    return started


def test_killed_owner_takes_kafka_and_redis_along(start_owner: Callable[[str], subprocess.Popen[str]]) -> None:
    """
    SIGKILL to the process that started them ends broker and Redis, and removes what they wrote.
    """
    owner = start_owner(KAFKA_AND_REDIS)
    started = reported(owner)

    owner.kill()

    assert len(started) == 2
    assert eventually(lambda: all(server.gone() for server in started))


def test_killed_supervisor_takes_its_server_along(start_owner: Callable[[str], subprocess.Popen[str]]) -> None:
    """
    SIGKILL to the process in between ends the server too: the kernel sees to it. The owner lives, and cleans away.
    """
    owner = start_owner(REDIS)
    (redis,) = reported(owner)

    os.kill(redis.supervisor, signal.SIGKILL)

    assert eventually(lambda: not alive(redis.pid))
    assert owner.poll() is None

    owner.send_signal(signal.SIGINT)

    assert eventually(redis.gone)


def test_forked_child_does_not_keep_the_server(start_owner: Callable[[str], subprocess.Popen[str]]) -> None:
    """
    A child that the owner forked, and that holds a copy of the pipe, does not keep the server from ending.
    """
    owner = start_owner(REDIS_AND_FORKED_CHILD)
    (redis,) = reported(owner)
    child = int(line_from(owner))

    owner.kill()
    try:
        assert eventually(redis.gone)
        assert alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_server_outlives_the_thread_that_started_it(start_owner: Callable[[str], subprocess.Popen[str]]) -> None:
    """
    A server started by a thread that has ended since lives until the process ends, and then ends with it.
    """
    owner = start_owner(REDIS_STARTED_BY_A_THREAD)
    (redis,) = reported(owner)

    assert not eventually(redis.gone, deadline_s=1.0)

    owner.kill()

    assert eventually(redis.gone)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_foreground_says_what_to_export_until_a_signal(
    number: signal.Signals, start_owner: Callable[[str], subprocess.Popen[str]]
) -> None:
    """
    In the foreground both servers answer where the printed lines say, and a signal ends all with exit status 0.
    """
    owner = start_owner(FOREGROUND)
    lines = iter(lambda: line_from(owner), "# Ctrl-C stops both.")
    exports = dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))

    ask_kafka(exports["KAFKA_BOOTSTRAP_SERVERS"], timeout_s=10)
    with Redis.from_url(exports["REDIS_URL"]) as client:
        redis_pid = client.info("server")["process_id"]
    owner.send_signal(number)
    rest, _ = owner.communicate()

    assert list(exports) == ["KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"]
    assert rest == "# Both are stopped.\n"
    assert owner.returncode == 0
    assert not alive(redis_pid)


def test_foreground_ends_when_a_server_does(start_owner: Callable[[str], subprocess.Popen[str]]) -> None:
    """
    A developer learns at once that a server has ended, by a non-zero exit.
    """
    owner = start_owner(FOREGROUND)
    lines = list(iter(lambda: line_from(owner), "# Ctrl-C stops both."))
    with Redis.from_url(lines[-1].partition("=")[2]) as client:
        redis_pid = client.info("server")["process_id"]

    os.kill(redis_pid, signal.SIGKILL)
    owner.communicate()

    assert owner.returncode != 0
