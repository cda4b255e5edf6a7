"""
What the Kafka adapters share: how to connect, what must hold at the start, kafka-python's errors in our terms.

Consuming lives in ``kafka_source.py`` and ``kafka_stretches.py``, producing in ``kafka_outbox.py``, topics in
``kafka_topics.py``.
"""

import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal

import kafka.errors as kafka_errors
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.record import util as kafka_record_util
from kafka.structs import OffsetAndMetadata

from worker.adapters.kafka_handshake import handshake_fault, tls_config
from worker.domain import Partition
from worker.errors import CannotStart, WorkerCrashed
from worker.settings.tree import KafkaSettings

START_TIMEOUT_S: Final = 15.0
"""How long an unreachable Kafka is waited for when a worker starts."""

CLOSE_TIMEOUT_S: Final = 5.0
COMMIT_TIMEOUT_S: Final = 5.0
RECONNECT_AT_LATEST_MS: Final = 1_000

Isolation = Literal["read_committed", "read_uncommitted"]

_ADVICE: Final[tuple[tuple[type[Exception], str], ...]] = (
    (
        kafka_errors.FencedInstanceIdError,
        "another worker joined the group with the same service.instance_id; give each worker an id of its own",
    ),
    (
        kafka_errors.InconsistentGroupProtocolError,
        "the group has members that do not use cooperative-sticky assignment; stop them, or set another kafka.group_id",
    ),
    (
        kafka_errors.InvalidSessionTimeoutError,
        "set kafka.session_timeout_s within the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms",
    ),
    (
        kafka_errors.InvalidTransactionTimeoutError,
        "set kafka.transaction_timeout_s to at most the brokers' transaction.max.timeout.ms",
    ),
    (
        kafka_errors.MessageSizeTooLargeError,
        "the topic's max.message.bytes is too small; `touchstone topics plan` shows what it should be",
    ),
    (
        kafka_errors.UnknownTopicOrPartitionError,
        "a topic is gone; `touchstone topics apply` creates what is missing",
    ),
    (
        kafka_errors.AuthorizationError,
        "grant this user Read on uploads, retry topics and group, Write on all but uploads and on the transactional id",
    ),
    (
        kafka_errors.SaslAuthenticationFailedError,
        "check kafka.sasl_username, kafka.sasl_password and kafka.sasl_mechanism",
    ),
    (
        ssl.SSLError,
        "name PEM files in kafka.ssl_*, a certificate and its own key, and check kafka.ssl_key_password",
    ),
    (
        kafka_errors.CorruptRecordError,
        "a record fails its checksum; restore that log segment, or move the group's offset past it and restart",
    ),
)


def require_crc32c() -> None:
    """
    The C codec of record checksums is installed; else raises ``CannotStart``.

    Without it kafka-python reckons them in Python, 25 times slower, and says nothing.
    """
    if kafka_record_util.crc32c_c is None:
        raise CannotStart(
            "kafka-python has no C implementation of crc32c and would be 25 times slower without a word. "
            'Install it: pip install "kafka-python[crc32c]"'
        )


def connection_config(settings: KafkaSettings) -> dict[str, Any]:
    """
    The arguments of every kafka-python client that say where the brokers are and who we are.

    Raises ``CannotStart`` when a file of certificates or of a key does not exist.
    """
    config: dict[str, Any] = {
        "bootstrap_servers": [part.strip() for part in settings.bootstrap_servers.split(",") if part.strip()],
        "security_protocol": settings.security_protocol,
        # With the default of 30 s a worker would come back so long after its broker did.
        "reconnect_backoff_max_ms": RECONNECT_AT_LATEST_MS,
    }
    if settings.sasl_mechanism is not None and settings.sasl_password is not None:
        config |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password.get_secret_value(),
        }
    return config | tls_config(settings)


def reading_config(
    settings: KafkaSettings, *, client_id: str, group_id: str | None = None, isolation: Isolation = "read_committed"
) -> dict[str, Any]:
    """
    The arguments of every consumer of ours: nothing is committed but by us, and nothing old is passed over unasked.
    """
    return connection_config(settings) | {
        "client_id": client_id,
        "group_id": group_id,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "isolation_level": isolation,
        "allow_auto_create_topics": False,
    }


def partitions_of(consumer: Any, topic: str) -> list[TopicPartition]:  # noqa: ANN401 - kafka-python is untyped
    """
    The partitions of a topic, in order. Raises ``CannotStart`` where none is known: nothing is not the whole topic.
    """
    numbers = sorted(consumer.partitions_for_topic(topic) or ())
    if not numbers:
        raise CannotStart(f"Kafka knows topic {topic} and none of its partitions; look after its leaders")
    return [TopicPartition(topic, number) for number in numbers]


def commit_offsets(
    consumer: Any,  # noqa: ANN401 - kafka-python is untyped
    offsets: Mapping[Partition, int],
    *,
    topic: str,
    refusals: tuple[type[Exception], ...] = (),
) -> bool:
    """
    Store under the consumer's group what is to be read next; False when Kafka did not take it, or with a refusal.

    Raises ``WorkerCrashed`` when it never will: no permission, or our instance id given away.
    """
    stored = {TopicPartition(at.topic, at.number): OffsetAndMetadata(next_, "", -1) for at, next_ in offsets.items()}
    try:
        consumer.commit(stored, timeout_ms=COMMIT_TIMEOUT_S * 1000)
    except refusals:
        return False
    except kafka_errors.KafkaError as error:
        if error.retriable:
            # It may have been stored all the same; storing it again does no harm.
            return False
        raise crashed(error, f"to commit offsets of {topic}") from error
    return True


def leave(consumer: Any) -> None:  # noqa: ANN401 - kafka-python is untyped
    """
    Release the connections, and leave the group if there is one. Commits nothing.
    """
    # A broker that does not hear us leave notices when the session has run out.
    with suppress(kafka_errors.KafkaError):
        consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_S * 1000)


@contextmanager
def starting(settings: KafkaSettings, timeout_s: float) -> Iterator[None]:
    """
    Whatever goes wrong with Kafka inside is a ``CannotStart`` that says where we looked and what to do.
    """
    try:
        yield
    except kafka_errors.KafkaTimeoutError as error:
        if fault := handshake_fault(settings):
            raise CannotStart(f"Kafka at {settings.bootstrap_servers} cannot be used: {fault}") from error
        raise CannotStart(
            f"No Kafka broker at {settings.bootstrap_servers} was ready within {timeout_s:g} s "
            f"(security_protocol {settings.security_protocol}; {error}). "
            "Start Kafka there, or correct kafka.bootstrap_servers and kafka.security_protocol; "
            "`touchstone dev` brings up a Kafka for development."
        ) from error
    except (kafka_errors.KafkaError, OSError, ValueError) as error:
        raise CannotStart(f"Kafka at {settings.bootstrap_servers} cannot be used: {told(error)}") from error


def require_topics(settings: KafkaSettings, names: Sequence[str], *, timeout_s: float = START_TIMEOUT_S) -> None:
    """
    Kafka answers and has these topics; else raises ``CannotStart``.

    Asked before a consumer or producer is made, because these wait for a missing topic without naming it.
    """
    with starting(settings, timeout_s), admin_client(settings, timeout_s=timeout_s) as admin:
        described = admin.describe_topics(list(names))
    found = {topic["name"]: kafka_errors.for_code(topic["error_code"]) for topic in described}
    refused = {name: error for name, error in found.items() if issubclass(error, kafka_errors.AuthorizationError)}
    for name, error in refused.items():
        raise CannotStart(f"Kafka at {settings.bootstrap_servers} refused topic {name}: {told(error())}")
    missing = sorted(name for name, error in found.items() if error is kafka_errors.UnknownTopicOrPartitionError)
    if missing:
        raise CannotStart(
            f"Kafka at {settings.bootstrap_servers} has no topic {', '.join(missing)}. "
            "Run `touchstone topics apply` to create it, or correct kafka.topics."
        )


@contextmanager
def admin_client(settings: KafkaSettings, *, timeout_s: float = START_TIMEOUT_S) -> Iterator[Any]:
    """
    A kafka-python admin client, closed afterwards.
    """
    admin = KafkaAdminClient(
        **connection_config(settings),
        client_id="touchstone-admin",
        bootstrap_timeout_ms=round(timeout_s * 1000),
        request_timeout_ms=round(timeout_s * 1000),
    )
    try:
        yield admin
    finally:
        admin.close()


def crashed(error: Exception, doing: str) -> WorkerCrashed:
    """
    A failure of Kafka that no retry mends, as what ends the worker.
    """
    return WorkerCrashed(f"Kafka refused {doing}: {told(error)}")


def told(error: Exception) -> str:
    """
    kafka-python's error in a sentence, with what to do about it where we know.
    """
    advice = next((advice for known, advice in _ADVICE if isinstance(error, known)), "")
    # str() of these errors leaves out the name for some of them and the text for others.
    text = f"{type(error).__name__}: {error}" if type(error).__name__ not in str(error) else str(error)
    return f"{text}; {advice}" if advice else text
