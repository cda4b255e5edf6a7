"""
Outcomes to Kafka: published and acknowledged one by one, or in one transaction with the offsets that they answer.

Consuming lives in ``kafka_source.py``; the account of acknowledgements in ``kafka_acknowledgements.py``.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, Literal, NoReturn, cast

import kafka.errors as kafka_errors
from kafka import KafkaProducer, TopicPartition
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from worker.adapters.kafka_acknowledgements import Acknowledgements, unpublished
from worker.adapters.kafka_client import (
    CLOSE_TIMEOUT_S,
    START_TIMEOUT_S,
    connection_config,
    require_crc32c,
    require_topics,
    starting,
    told,
)
from worker.adapters.kafka_coordinator import ask_on, is_member, stored_offsets
from worker.adapters.topic_plan import retry_message_bytes
from worker.domain import Partition
from worker.errors import CannotStart, ProducerFenced, PublishFailed
from worker.flow.bell import Bell
from worker.outcomes import Message, Release
from worker.ports import GroupMembership, PositionDone, Recorder
from worker.settings.tree import KafkaSettings
from worker.stages.serialise import max_dead_letter_bytes

LINGER_MS: Final = 5
BATCH_BYTES: Final = 262_144
"""Its sending thread took 0.03 ms of CPU per verdict of 4 kB, with 64 KiB 0.07 ms (four partitions, 650 a second)."""

# gzip, the only codec without a further package, costs 113 µs per verdict (measured likewise).
_COMPRESSION: Final = None

TRANSACTION_RETRY_BACKOFF_MS: Final = 5
"""
kafka-python waits so long before it repeats a request of a transaction, as it must while the previous one completes.

Measured for ten messages, one transaction after the other, on the mean: 7 ms; 33 ms, and 215 ms at worst, with its
default of 100 ms; 196 ms if the messages are not flushed before the commit either, which sends it looking every 100 ms.
"""

RETRY_BACKOFF_MS: Final = 100
OVERDUE_GRACE_S: Final = 5.0


class KafkaOutbox:
    """
    Implements ``worker.ports.Outbox``; with a ``transactional_id`` for ``transact``, without one for ``publish``.

    Raises ``CannotStart`` within ``start_timeout_s`` for each step when Kafka is not there. Starting takes over the
    transactional id: whoever had it before is fenced, and what it left open is aborted.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        recorder: Recorder,
        *,
        client_id: str,
        transactional_id: str | None,
        retry_topics: Sequence[str] = (),
        bell: Bell | None = None,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        require_crc32c()
        self._topics = [settings.topics.verdicts, settings.topics.dead_letters, *retry_topics]
        require_topics(settings, self._topics, timeout_s=start_timeout_s)
        self._settings = settings
        self._recorder = recorder
        self._transactional_id = transactional_id
        self._start_timeout_s = start_timeout_s
        self._config = producer_config(settings, client_id=client_id, transactional_id=transactional_id) | {
            "bootstrap_timeout_ms": round(start_timeout_s * 1000),
            "max_block_ms": round(start_timeout_s * 1000),
        }
        self._acknowledgements = Acknowledgements(timeout_s=settings.publish_timeout_s + OVERDUE_GRACE_S, bell=bell)
        self._producer = self._start()

    def _start(self) -> Any:  # noqa: ANN401 - kafka-python is untyped
        with starting(self._settings, self._start_timeout_s):
            producer = KafkaProducer(**self._config)
            ask_on(producer)
            try:
                # Now, because a send that must look a topic up blocks.
                for topic in self._topics:
                    producer.partitions_for(topic)
                if self._transactional_id is not None:
                    producer.init_transactions()
            except BaseException:
                _close(producer, timeout_s=0)
                raise
        return producer

    def publish(self, releases: Sequence[Release]) -> None:
        """
        Hand the messages over, in order. Never blocks: kafka-python's buffer has no bound, what is in flight has.
        """
        for release in releases:
            ticket = self._acknowledgements.expect(release.partition, release.offset, messages=len(release.messages))
            for message in release.messages:
                future = self._send(release, message)
                # On the IO thread, which must not be kept.
                future.add_callback(self._settle, ticket)
                future.add_errback(self._fail, ticket)

    def _settle(self, ticket: int, _metadata: object) -> None:
        self._acknowledgements.settle(ticket)

    def _fail(self, ticket: int, error: Exception) -> None:
        self._acknowledgements.fail(ticket, told(error))

    def take_acknowledged(self) -> Sequence[PositionDone]:
        """
        The positions acknowledged since the last call. Raises ``PublishFailed``.
        """
        return self._acknowledgements.take()

    def unacknowledged_s(self) -> float:
        """
        For how many seconds the oldest published outcome has waited. Any thread may ask; transactions are not told.
        """
        return self._acknowledgements.oldest_s

    def flush(self, timeout_s: float) -> None:
        """
        Block until everything published is acknowledged. Raises ``PublishFailed`` after ``timeout_s``.
        """
        deadline_s = time.monotonic() + timeout_s
        # What was not flushed in time is told below.
        with contextlib.suppress(kafka_errors.KafkaTimeoutError):
            self._producer.flush(timeout_s)
        # kafka-python's flush returns early for a batch that the broker made it split.
        self._acknowledgements.wait_all(max(0.0, deadline_s - time.monotonic()))

    def transact(
        self, releases: Sequence[Release], offsets: Mapping[Partition, int], membership: GroupMembership
    ) -> bool:
        """
        All messages and the offsets in one transaction, within ``publish_timeout_s``.

        False when the group refused: aborted, and ready for the next. Raises ``ProducerFenced`` or ``PublishFailed``,
        after which this outbox is of no more use.
        """
        place = cast("ConsumerGroupMetadata", membership)
        done = self._may_commit(place) and self._bounded(lambda: self._transact(releases, offsets, place))
        result: Literal["ok", "refused"] = "ok" if done else "refused"
        self._recorder.count("commits_total", result=result)
        return done

    def _may_commit(self, place: ConsumerGroupMetadata) -> bool:
        # The broker would take the offsets of a consumer that is no member, from anybody and without fencing (KIP-447).
        return place.generation_id >= 0 and bool(place.member_id)

    def _add_offsets(self, offsets: Mapping[Partition, int], place: ConsumerGroupMetadata) -> None:
        """
        Make the offsets a part of the transaction that is open.
        """
        positions = {TopicPartition(at.topic, at.number): OffsetAndMetadata(to, "", -1) for at, to in offsets.items()}
        self._producer.send_offsets_to_transaction(positions, place)

    def _transact(
        self, releases: Sequence[Release], offsets: Mapping[Partition, int], place: ConsumerGroupMetadata
    ) -> bool:
        sent: list[tuple[Release, Any]] = []
        began_s = time.monotonic()
        try:
            self._producer.begin_transaction()
            sent += ((release, self._send(release, message)) for release in releases for message in release.messages)
            self._add_offsets(offsets, place)
            # Before the commit: kafka-python 3.0.12 commits a transaction without the messages whose time ran out.
            self._producer.flush(self._settings.publish_timeout_s)
            for _, future in sent:
                future.get(self._settings.publish_timeout_s)
            self._producer.commit_transaction()
        except kafka_errors.CommitFailedError:
            self._begin_again()
            return False
        except (kafka_errors.KafkaError, PublishFailed) as error:
            late = time.monotonic() - began_s >= self._settings.transaction_timeout_s
            if late and is_fenced(error) and offsets and self._is_still_in(place):
                return self._outlived(offsets, place.group_id)
            self._give_up(error, sent)
        return True

    def _is_still_in(self, place: ConsumerGroupMetadata) -> bool:
        """
        Whether the group counts us among its members; who is none has lost its id to another for good.

        So has a run, which is in no group: nothing but its id tells two processes of it apart. A group without
        static membership keeps a process that stood still for ``session_timeout_s``, and for so long two processes with
        one service.instance_id are both members: the one that stood still then takes the id back, once, and the other
        ends and is started again.
        """
        if place.generation_id < 0:
            return False
        try:
            return is_member(self._settings, place)
        except CannotStart as error:
            raise PublishFailed(f"A transaction took too long, and nobody says who is in the group: {error}") from error

    def _outlived(self, offsets: Mapping[Partition, int], group_id: str) -> bool:
        """
        Whether a transaction that took longer than its time was committed all the same; with a new producer either way.

        Then the coordinator aborts it and lets nobody go on under the old epoch, unless it was told to commit before.
        Taking over the id waits for either; the group's offsets, which lie in the same transaction, say which it was.
        """
        _close(self._producer, timeout_s=0)
        try:
            self._producer = self._start()
            stored = stored_offsets(
                self._settings, list(offsets), group_id=group_id, client_id=self._config["client_id"]
            )
        except CannotStart as error:
            raise PublishFailed(f"A transaction took too long, and a new one cannot be begun: {error}") from error
        return all(stored.get(at, -1) >= offset for at, offset in offsets.items())

    def _begin_again(self) -> None:
        """
        Abort, and go on with a new producer.

        The old one would send the refused offsets once more within its next transaction (kafka-python 3.0.12 keeps
        them), and so commit offsets of partitions that are another worker's by then. A new one takes 20 ms.
        """
        try:
            self._producer.abort_transaction()
        except kafka_errors.KafkaError as error:
            self._give_up(error, [])
        _close(self._producer, timeout_s=CLOSE_TIMEOUT_S)
        try:
            self._producer = self._start()
        except CannotStart as error:
            raise PublishFailed(f"The group refused a transaction, and a new one cannot be begun: {error}") from error

    def _give_up(self, error: Exception, sent: Sequence[tuple[Release, Any]]) -> NoReturn:
        found = [error]
        try:
            self._producer.abort_transaction()
        except kafka_errors.KafkaError as abort_error:
            # Then the brokers abort it: when transaction_timeout_s is over, or somebody takes over the id.
            found.append(abort_error)
        if any(map(is_fenced, found)):
            raise ProducerFenced(
                f"Kafka gave the transactional id {self._transactional_id} to another producer, or a transaction took "
                f"longer than kafka.transaction_timeout_s ({self._settings.transaction_timeout_s:g} s). "
                "Give each worker a service.instance_id of its own, then restart."
            ) from error
        if isinstance(error, PublishFailed):
            raise error
        # kafka-python tells the failure of a message to whichever call comes next.
        culprit = next((release for release, future in sent if future.exception is error), None)
        if culprit is not None:
            raise PublishFailed(unpublished(culprit.partition, culprit.offset, told(error))) from error
        raise PublishFailed(
            f"A transaction failed: {told(error)}. It is to be seen whole or not at all, and what it did not commit is "
            "read again after a restart."
        ) from error

    def _send(self, release: Release, message: Message) -> Any:  # noqa: ANN401 - kafka-python is untyped
        try:
            return self._producer.send(
                message.topic,
                value=message.value,
                key=message.key,
                headers=list(message.headers),
                timestamp_ms=message.timestamp_ms,
            )
        except kafka_errors.KafkaError as error:
            raise PublishFailed(unpublished(release.partition, release.offset, told(error))) from error

    def _bounded(self, call: Callable[[], bool]) -> bool:
        """
        ``call`` on a thread of its own, because kafka-python's transactions wait for a broker without end.
        """
        outcome: Future[bool] = Future()

        def run() -> None:
            try:
                outcome.set_result(call())
            except BaseException as error:  # noqa: BLE001 - it is raised again, on the thread that asked
                outcome.set_exception(error)

        threading.Thread(target=run, name="touchstone-transaction", daemon=True).start()
        try:
            return outcome.result(self._settings.publish_timeout_s)
        except TimeoutError:
            raise PublishFailed(
                f"A transaction was not finished within kafka.publish_timeout_s "
                f"({self._settings.publish_timeout_s:g} s). The brokers abort it, or it is committed whole; check the "
                "brokers, then restart."
            ) from None

    def close(self) -> None:
        """
        Release the producer, waiting at most ``CLOSE_TIMEOUT_S`` for what is under way.
        """
        _close(self._producer, timeout_s=CLOSE_TIMEOUT_S)


def producer_config(settings: KafkaSettings, *, client_id: str, transactional_id: str | None) -> dict[str, Any]:
    """
    kafka-python's arguments for the producer of outcomes. What would lose or repeat outcomes is no setting.
    """
    delivery_ms = round(settings.publish_timeout_s * 1000)
    return connection_config(settings) | {
        "client_id": client_id,
        "acks": "all",
        "enable_idempotence": True,
        "transactional_id": transactional_id,
        "transaction_timeout_ms": round(settings.transaction_timeout_s * 1000),
        "retry_backoff_ms": RETRY_BACKOFF_MS if transactional_id is None else TRANSACTION_RETRY_BACKOFF_MS,
        "delivery_timeout_ms": delivery_ms,
        "request_timeout_ms": max(1, min(30_000, delivery_ms - LINGER_MS)),
        "linger_ms": LINGER_MS,
        "batch_size": BATCH_BYTES,
        "compression_type": _COMPRESSION,
        "max_request_size": max(1_048_576, max_dead_letter_bytes(), retry_message_bytes(settings)),
        "allow_auto_create_topics": False,
    }


def is_fenced(error: Exception) -> bool:
    """
    Whether it says that our transactional id is another producer's now.

    kafka-python tells it by its class only to the call that finds it out, and to later calls in the text.
    """
    fenced = (kafka_errors.ProducerFencedError, kafka_errors.InvalidProducerEpochError)
    chain = (error, error.__cause__)
    return any(isinstance(link, fenced) or "ProducerFencedError" in str(link) for link in chain)


def _close(producer: Any, *, timeout_s: float) -> None:  # noqa: ANN401 - kafka-python is untyped
    try:
        producer.close(timeout=timeout_s)
    except kafka_errors.KafkaTimeoutError:
        # What is left was promised to nobody; its thread ends with the process.
        return
