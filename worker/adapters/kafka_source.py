"""
Upload events from the upload topic and the retry topics, through a consumer group.

What the group gives and takes is recorded in ``kafka_group.py``, which partitions wait in ``kafka_waits.py``, and when
a poll is worth while in ``kafka_fetches.py``; producing lives in ``kafka_outbox.py``.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import kafka.errors as kafka_errors
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import MemberState

from worker.adapters.kafka_client import (
    START_TIMEOUT_S,
    commit_offsets,
    crashed,
    leave,
    reading_config,
    require_crc32c,
    require_topics,
    starting,
)
from worker.adapters.kafka_fetches import FetchWatch
from worker.adapters.kafka_group import GroupWatch, OwnedNowAssignor, need_rejoin, remember_join
from worker.adapters.kafka_lag import LagWatch
from worker.adapters.kafka_records import fault_of, read_all_records
from worker.adapters.kafka_waits import RetryWaits
from worker.adapters.system_clock import SystemClock
from worker.domain import Partition, RawEvent
from worker.errors import CannotStart
from worker.flow.bell import Bell
from worker.ports import GroupMembership, Polled, Recorder, Standing
from worker.settings.tree import KafkaSettings

REJOIN_WAIT_S: Final = 0.5
"""
How long a poll waits for a rebalance that is under way.

When a join is answered between two polls, kafka-python 3.0.12 throws the answer away and joins again, which makes
every member join again: with polls shorter than a round trip the group would never settle.
"""

HEARTBEATS_PER_SESSION: Final = 15

# An upload that was written in a transaction and aborted is no upload, whatever is promised about our own output. Also
# makes kafka-python ask for stable offsets (KIP-447): a new owner waits for the transaction of the one before. Price:
# a partition stands still while an uploader leaves a transaction open.
_ISOLATION: Final = "read_committed"
_REFUSALS: Final = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.UnknownMemberIdError,
)
_Records = Mapping[TopicPartition, Sequence[Any]]


class KafkaEventSource:
    """
    Implements ``worker.ports.EventSource``. Raises ``CannotStart`` within ``start_timeout_s`` when Kafka is not there.

    Uploads that were put off come from the topics of ``retries``, none before it may be tried: its partition is paused
    until then, while the others go on. Offsets are committed by ``commit`` and by transactions only. While the group
    rebalances, a poll waits for that and finds nothing: kafka-python hands out no events then, not even of partitions
    that stay. A poll that waits for events ends at once when somebody rings ``bell``.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        recorder: Recorder,
        *,
        client_id: str,
        instance_id: str | None = None,
        retries: RetryWaits | None = None,
        bell: Bell | None = None,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self._waits = RetryWaits((), SystemClock()) if retries is None else retries
        self._bell = Bell() if bell is None else bell
        self._topics = [settings.topics.uploads, *self._waits.topics]
        require_crc32c()
        require_topics(settings, self._topics, timeout_s=start_timeout_s)
        self._recorder = recorder
        self._watch = GroupWatch(recorder)
        self._lag = LagWatch()
        config = consumer_config(settings, client_id=client_id, instance_id=instance_id)
        with starting(settings, start_timeout_s):
            self._consumer = KafkaConsumer(
                **config,
                partition_assignment_strategy=[OwnedNowAssignor(self._watch.owned)],
                bootstrap_timeout_ms=round(start_timeout_s * 1000),
            )
            self._require_safe_offsets()
            read_all_records(self._consumer)
            self._fetches = FetchWatch(self._consumer, self._bell)
            self._watch.watch(self._consumer)
            self._consumer.subscribe(self._topics, listener=self._watch)
            # Before the first join: a leader that does not know a topic's partitions assigns none, to nobody.
            for topic in self._topics:
                self._consumer.partitions_for_topic(topic)
        self._place = self._consumer.group_metadata()
        self._expelled = False
        self._taking = False
        self._away = False

    def _require_safe_offsets(self) -> None:
        # kafka-python's own defaults, auto-commit on and latest, both lose uploads.
        found = {name: self._consumer.config[name] for name in ("enable_auto_commit", "auto_offset_reset")}
        if found != {"enable_auto_commit": False, "auto_offset_reset": "earliest"}:
            raise CannotStart(f"kafka-python took {found}, want no auto-commit and earliest; use kafka-python 3")

    def poll(self, *, room: int, wait_s: float) -> Polled:
        """
        At most ``room`` events; what was revoked; and the membership under which both are true.

        ``membership`` is the place in the group whose assignment has been told in full. It is not always the latest
        that kafka-python knows: that moves on to the next generation while a join is under way, before it tells what is
        revoked in it, and the broker takes transactions of that generation already. So all that was revoked up to the
        generation of ours is in this or an earlier ``revoked``, and after any later revocation the broker refuses it.
        """
        found = self._look(room) if wait_s <= 0 or self._is_due(room) else self._nothing()
        # A rebalance was waited for already.
        if wait_s > 0 and not found.events and not found.revoked and (self._stable or self._away):
            self._bell.wait(min(wait_s, self._fetches.left_s))
            # Rung for something else, as like as not, which is not kept waiting for Kafka.
            if self._is_due(room):
                found = self._look(room)
        self._lag.look(self._consumer)
        return found

    def _is_due(self, room: int) -> bool:
        return self._fetches.due or self._taking != (room > 0) or not self._stable or need_rejoin(self._consumer)

    @property
    def _stable(self) -> bool:
        return bool(self._consumer.group_metadata().state == MemberState.STABLE)

    def _nothing(self) -> Polled:
        return Polled(frozenset(), (), GroupMembership(self._place))

    def _look(self, room: int) -> Polled:
        self._taking = room > 0
        self._hold_or_take(room)
        self._fetches.polling()
        records = self._fetch(max(room, 1))
        self._fetches.polled(taking=self._taking)
        if self._astray():
            records = {}
        revoked = self._watch.take_revoked()
        self._waits.forget(revoked)
        present = self._consumer.group_metadata()
        if present.state == MemberState.STABLE:
            self._place = present
        return Polled(revoked, self._events(records, room), GroupMembership(self._place))

    def _hold_or_take(self, room: int) -> None:
        # From what the consumer has, each time: a partition may have come, or gone and come back, since the last poll.
        if room > 0:
            self._consumer.resume(*(self._consumer.paused() - self._waits.waiting()))
        else:
            self._consumer.pause(*self._consumer.assignment())

    def _fetch(self, limit: int) -> _Records:
        try:
            records = self._poll(limit, 0.0)
            self._away = False
            if not records and not self._stable:
                # At once, so that the answer to a join falls into a poll and not between two.
                records = self._poll(limit, REJOIN_WAIT_S)
        except kafka_errors.KafkaError as error:
            if not error.retriable:
                raise crashed(error, f"to give events of {', '.join(self._topics)}") from error
            # A broker that is away is waited for: the consumer reconnects by itself.
            self._away = True
            return {}
        return records

    def _poll(self, limit: int, wait_s: float) -> _Records:
        remember_join(self._consumer)
        records: _Records = self._consumer.poll(timeout_ms=wait_s * 1000, max_records=limit)
        return records

    def _events(self, records: _Records, room: int) -> list[RawEvent]:
        if room == 0:
            # Of a partition that was assigned within this very poll, and therefore not paused: put back.
            for partition, taken in records.items():
                self._consumer.seek(partition, taken[0].offset)
            return []
        now_s = time.time()
        due = {partition: self._due(partition, taken) for partition, taken in records.items()}
        return [self._waits.told(raw_event(record, now_s)) for taken in due.values() for record in taken]

    def _due(self, partition: TopicPartition, records: Sequence[Any]) -> Sequence[Any]:
        """
        What may be handed on now; the partition waits before the rest, if there is one.
        """
        due = self._waits.due(partition, records)
        if len(due) < len(records) and partition in self._consumer.assignment():
            self._consumer.seek(partition, records[len(due)].offset)
            self._consumer.pause(partition)
        return due

    def _astray(self) -> bool:
        """
        Whether the consumer may be reading from old positions; if so, everything is told as lost.

        It then joins afresh, but not before it has joined as it is: leaving would wait behind its pending join.
        """
        if self._watch.expelled_unnoticed():
            self._watch.lose_all()
            self._expelled = True
        if not self._expelled:
            return False
        if self._stable:
            self._watch.lose_all()
            self._consumer.unsubscribe()
            self._consumer.subscribe(self._topics, listener=self._watch)
            self._expelled = False
        return True

    def standing(self) -> Standing:
        """
        What this consumer holds and how far behind it is, as of about a second ago. Any thread may ask.
        """
        return self._lag.standing

    def commit(self, offsets: Mapping[Partition, int]) -> bool:
        """
        Store the offsets of the partitions that are ours; False unless that was all of them and the group took them.

        Raises ``WorkerCrashed`` when the group will never take them: no permission, or our instance id given away.
        """
        assigned = self._consumer.assignment()
        ours = {
            partition: offset
            for partition, offset in offsets.items()
            if TopicPartition(partition.topic, partition.number) in assigned
        }
        topics = ", ".join(self._topics)
        stored = commit_offsets(self._consumer, ours, topic=topics, refusals=_REFUSALS) and len(ours) == len(offsets)
        result: Literal["ok", "refused"] = "ok" if stored else "refused"
        self._recorder.count("commits_total", result=result)
        return stored

    @property
    def exhausted(self) -> bool:
        """
        Never: a topic goes on.
        """
        return False

    def close(self) -> None:
        """
        Leave the group, within ``CLOSE_TIMEOUT_S`` for each step that needs the broker. Commits nothing.
        """
        leave(self._consumer)


def consumer_config(settings: KafkaSettings, *, client_id: str, instance_id: str | None) -> dict[str, Any]:
    """
    kafka-python's arguments for the consumer of uploads. What would lose uploads if it were changed is no setting.
    """
    if settings.static_membership and instance_id is None:
        raise CannotStart("kafka.static_membership needs an instance id; set service.instance_id")
    session_ms = round(settings.session_timeout_s * 1000)
    config = reading_config(settings, client_id=client_id, group_id=settings.group_id, isolation=_ISOLATION)
    return config | {
        "group_instance_id": instance_id if settings.static_membership else None,
        "session_timeout_ms": session_ms,
        "heartbeat_interval_ms": max(1, session_ms // HEARTBEATS_PER_SESSION),
        "max_poll_interval_ms": round(settings.max_poll_interval_s * 1000),
        "max_partition_fetch_bytes": fetch_bytes(settings),
    }


def fetch_bytes(settings: KafkaSettings) -> int:
    """
    How much a consumer of uploads fetches of a partition at once: the largest upload, or kafka-python's own choice.
    """
    return max(1_048_576, settings.max_event_bytes)


def raw_event(record: Any, now_s: float) -> RawEvent:  # noqa: ANN401 - kafka-python is untyped
    """
    A record as kafka-python gives it, as ours; ``now_s`` is when it was polled, in seconds since the epoch.
    """
    fault = fault_of(record.headers)
    return RawEvent(
        Partition(record.topic, record.partition),
        record.offset,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
        # -1 stands for none.
        timestamp_ms=record.timestamp if record.timestamp is not None and record.timestamp >= 0 else None,
        received_at_s=now_s,
        fault=fault,
        whole=fault is None,
    )
