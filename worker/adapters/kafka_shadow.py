"""
The candidate's verdicts to the shadow topic, through a producer of its own.

Nothing here ends the worker once it runs: what the broker does not take is told to whoever published it.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Final

import kafka.errors as kafka_errors
from kafka import KafkaProducer

from worker.adapters.circuit_breaker import CircuitBreaker
from worker.adapters.kafka_client import START_TIMEOUT_S, require_crc32c, require_topics, starting, told
from worker.adapters.kafka_outbox import producer_config
from worker.adapters.system_clock import SystemClock
from worker.outcomes import Message
from worker.settings.tree import KafkaSettings

MAX_BLOCK_MS: Final = 1_000
"""How long a send may look for a topic that has gone."""

LEFT_ALONE_S: Final = 10.0
"""How long nothing is sent after that: the candidate would do nothing else than wait."""

MOST_UNANSWERED: Final = 5_000
"""kafka-python's buffer has no bound; at 2.6 kB a verdict these are 13 MB."""

CLOSE_S: Final = 1.0

Done = Callable[[str | None], None]


class KafkaShadowOutbox:
    """
    Implements ``worker.flow.shadow.ShadowOutbox``.

    Raises ``CannotStart`` when Kafka or the shadow topic is not there. Its producer is not idempotent: one message that
    did not arrive would make such a producer refuse those behind it, and a repeated verdict has the same id.
    """

    def __init__(self, settings: KafkaSettings, *, client_id: str, start_timeout_s: float = START_TIMEOUT_S) -> None:
        require_crc32c()
        topic = settings.topics.shadow_verdicts
        require_topics(settings, [topic], timeout_s=start_timeout_s)
        config = producer_config(settings, client_id=f"{client_id}-shadow", transactional_id=None) | {
            "enable_idempotence": False,
            "bootstrap_timeout_ms": round(start_timeout_s * 1000),
            "max_block_ms": MAX_BLOCK_MS,
        }
        self._breaker = CircuitBreaker(SystemClock(), failures=1, open_s=LEFT_ALONE_S)
        self._lock = threading.Lock()
        self._unanswered = 0
        with starting(settings, start_timeout_s):
            self._producer: Any = KafkaProducer(**config)
            self._producer.partitions_for(topic)

    def publish(self, message: Message, done: Done) -> None:
        """
        Hand a message over; blocks for at most ``MAX_BLOCK_MS``, while its topic cannot be found.
        """
        refusal = self._refusal()
        if refusal is not None:
            done(refusal)
            return
        try:
            future = self._producer.send(
                message.topic,
                value=message.value,
                key=message.key,
                headers=list(message.headers),
                timestamp_ms=message.timestamp_ms,
            )
        except BaseException as error:
            self._settle()
            if not isinstance(error, kafka_errors.KafkaError):
                raise
            self._breaker.failed()
            done(told(error))
            return
        self._breaker.succeeded()
        future.add_callback(self._arrived, done)
        future.add_errback(self._refused, done)

    def _refusal(self) -> str | None:
        with self._lock:
            if self._unanswered >= MOST_UNANSWERED:
                return f"{MOST_UNANSWERED} verdicts wait for the broker already"
            if not self._breaker.allows():
                return f"the topic could not be found a moment ago; it is asked again after {LEFT_ALONE_S:g} s"
            self._unanswered += 1
            return None

    def _arrived(self, done: Done, _metadata: object) -> None:
        self._settle()
        done(None)

    def _refused(self, done: Done, error: Exception) -> None:
        self._settle()
        done(told(error))

    def _settle(self) -> None:
        with self._lock:
            self._unanswered -= 1

    def close(self) -> None:
        """
        Release the producer, waiting at most ``CLOSE_S`` for what is under way.
        """
        # What is left was promised to nobody.
        with contextlib.suppress(kafka_errors.KafkaTimeoutError):
            self._producer.close(timeout=CLOSE_S)
