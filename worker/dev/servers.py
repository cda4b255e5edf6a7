"""
The Kafka and the Redis to work with: those that the environment names, else real ones of our own.

Start reading here. What a server of our own is lives in ``kafka_server.py``, ``redis_server.py`` and ``embedded.py``.
"""

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Literal

from worker.dev.embedded import NotReady
from worker.dev.kafka_server import EmbeddedKafka
from worker.dev.probes import ask_kafka, ask_redis
from worker.dev.redis_server import EmbeddedRedis
from worker.errors import CannotStart

KAFKA_VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"
REDIS_VARIABLE = "REDIS_URL"
GIVEN_TIMEOUT_S = 10.0
CHECK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class KafkaAt:
    """
    A Kafka that answered. ``version``: in full if it is ours, else what its API versions betray, such as "4.3".
    """

    bootstrap_servers: str
    kind: Literal["given", "embedded"]
    version: str


@dataclass(frozen=True, slots=True)
class RedisAt:
    """
    A Redis that answered; ``version`` as it tells. ``url`` may hold a password: do not log it.
    """

    url: str
    kind: Literal["given", "embedded"]
    version: str


@contextmanager
def kafka_for(environ: Mapping[str, str]) -> Iterator[KafkaAt]:
    """
    The Kafka at ``KAFKA_BOOTSTRAP_SERVERS`` (plain text, no password), else one of our own while inside.

    Raises ``CannotStart`` if the named one does not answer: another in its place would hide the mistake.
    """
    if given := environ.get(KAFKA_VARIABLE, "").strip():
        try:
            facts = ask_kafka(given, timeout_s=GIVEN_TIMEOUT_S)
        except NotReady as error:
            raise CannotStart(_not_answered(KAFKA_VARIABLE, error)) from error
        yield KafkaAt(given, "given", facts.version)
        return
    with EmbeddedKafka() as kafka:
        yield KafkaAt(kafka.bootstrap_servers, "embedded", kafka.version)


@contextmanager
def redis_for(environ: Mapping[str, str]) -> Iterator[RedisAt]:
    """
    The Redis at ``REDIS_URL``, else one of our own while inside.

    Raises ``CannotStart`` if the named one does not answer.
    """
    if given := environ.get(REDIS_VARIABLE, "").strip():
        try:
            facts = ask_redis(given, timeout_s=GIVEN_TIMEOUT_S)
        except NotReady as error:
            raise CannotStart(_not_answered(REDIS_VARIABLE, error)) from error
        yield RedisAt(given, "given", facts.version)
        return
    with EmbeddedRedis() as redis:
        yield RedisAt(redis.url, "embedded", redis.version)


def run_in_foreground(say: Callable[[str], None], *, as_json: bool = False) -> None:
    """
    Servers of our own run until SIGINT or SIGTERM; ``say`` is given what to tell the developer, line by line.

    What to export is said in lines that a shell can evaluate; all else is said as shell comments. With ``as_json`` one
    line is said, once both answer: an object with their addresses and versions. Only for the main thread. Raises
    ``CannotStart`` if a server does not come up, or (``ServerEnded``) ends by itself later.
    """
    # SIGINT too: a process that a script starts in the background is born ignoring it.
    comment = _unsaid if as_json else say
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        comment("# Starting Kafka and Redis ...")
        with EmbeddedKafka() as kafka, EmbeddedRedis() as redis:
            if as_json:
                say(_as_json(kafka, redis))
            else:
                say(f"# Apache Kafka {kafka.version} and Redis {redis.version} answer; what they hold ends with them.")
                say(f"export {KAFKA_VARIABLE}={kafka.bootstrap_servers}")
                say(f"export {REDIS_VARIABLE}={redis.url}")
                say("# Ctrl-C stops both.")
            pause = threading.Event()
            while not pause.wait(CHECK_EVERY_S):
                kafka.check()
                redis.check()
    except KeyboardInterrupt:
        comment("# Both are stopped.")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _as_json(kafka: EmbeddedKafka, redis: EmbeddedRedis) -> str:
    facts = {
        KAFKA_VARIABLE: kafka.bootstrap_servers,
        REDIS_VARIABLE: redis.url,
        "kafka_version": kafka.version,
        "redis_version": redis.version,
    }
    return json.dumps(facts)


def _unsaid(_line: str) -> None:
    return None


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _not_answered(variable: str, error: NotReady) -> str:
    return (
        f"{variable} is set, but within {GIVEN_TIMEOUT_S:.0f} s {error}. "
        f"Start that server, correct {variable}, or unset it to have one brought up here."
    )
