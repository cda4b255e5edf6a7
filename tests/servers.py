"""
The Kafka and the Redis that tests run on: what the environment names, else real ones brought up for the session.

A pytest plugin (named in ``conftest.py``); tests that use it carry ``@pytest.mark.servers``.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest

from worker.dev.servers import KafkaAt, RedisAt, kafka_for, redis_for
from worker.errors import CannotStart

At = TypeVar("At", KafkaAt, RedisAt)


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaAt]:
    """
    A Kafka for the session; other tests use it too, so take ``topic_name`` and group ids of your own.
    """
    with or_skipped(kafka_for, os.environ) as at:
        yield at


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisAt]:
    """
    A Redis for the session; other tests use it too, so take keys of your own and never flush it.
    """
    with or_skipped(redis_for, os.environ) as at:
        yield at


@pytest.fixture
def topic_name() -> str:
    """
    The name of a topic that nobody has yet; it may serve as a prefix for several.
    """
    return f"touchstone-test-{uuid4().hex}"


@contextmanager
def or_skipped(
    server_for: Callable[[Mapping[str, str]], AbstractContextManager[At]], environ: Mapping[str, str]
) -> Iterator[At]:
    """
    The server that ``server_for(environ)`` brings; where there is none the test skips, and fails if CI is set.
    """
    with ExitStack() as stack:
        try:
            at = stack.enter_context(server_for(environ))
        except CannotStart as error:
            if environ.get("CI"):
                raise
            pytest.skip(str(error))
        yield at


def hold_still(pid: int) -> None:
    """
    Stop a process; when this returns, none of its threads runs any more. SIGCONT lets it go on.

    The signal alone is no such thing: on a busy machine other threads of the process still answer for a while.
    """
    os.kill(pid, signal.SIGSTOP)
    assert eventually(lambda: set(_thread_states(pid)) == {"T"}), f"process {pid} still runs after SIGSTOP"


def _thread_states(pid: int) -> Iterator[str]:
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        # A thread may end meanwhile; the name before its state may hold anything but ends with the last parenthesis.
        with suppress(FileNotFoundError, ProcessLookupError):
            yield stat.read_text(errors="replace").rpartition(")")[2].split()[0]


def eventually(condition: Callable[[], bool], *, deadline_s: float = 60.0) -> bool:
    """
    Whether ``condition`` came true before the deadline; it is asked every 20 ms.
    """
    pause, deadline = threading.Event(), time.monotonic() + deadline_s
    while not (true := condition()) and time.monotonic() < deadline:
        pause.wait(0.02)
    return true
