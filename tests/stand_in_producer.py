"""
As much of kafka-python's producer as the outbox uses, and outboxes over it.
"""

from collections.abc import Callable
from typing import Any

import pytest
from kafka.producer.future import FutureProduceResult, FutureRecordMetadata
from kafka.structs import ConsumerGroupMetadata, MemberState

from tests.kafka_reader import Counts
from tests.kafka_worlds import release
from worker.adapters import kafka_outbox
from worker.adapters.kafka_outbox import KafkaOutbox
from worker.domain import Partition
from worker.ports import GroupMembership
from worker.settings.tree import KafkaSettings

SETTINGS = KafkaSettings(publish_timeout_s=60.0)

VERDICTS = SETTINGS.topics.verdicts

UPLOADS = Partition(SETTINGS.topics.uploads, 2)

MEMBER = GroupMembership(ConsumerGroupMetadata("touchstone", 3, "member-a", None, MemberState.STABLE))


class StandIn:
    """
    As much of KafkaProducer as the outbox uses. ``calls`` is what it was asked, ``faults`` what shall raise what.
    """

    made: list["StandIn"]
    faults: dict[str, Exception]
    message_error: Exception | None
    on_commit: Callable[[], object]

    def __init__(self, **config: Any) -> None:  # noqa: ANN401 - kafka-python's arguments
        self.config = config
        self.calls: list[str] = []
        self.made.append(self)

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.faults:
            raise self.faults[name]

    def partitions_for(self, topic: str) -> set[int]:
        """
        One.
        """
        return {0}

    def init_transactions(self) -> None:
        """
        Take over the id.
        """
        self._called("init")

    def begin_transaction(self) -> None:
        """
        Begin.
        """
        self._called("begin")

    def send(self, topic: str, **message: object) -> FutureRecordMetadata:
        """
        A future that is done.
        """
        self._called("send")
        future = FutureRecordMetadata(FutureProduceResult((topic, 0)), 0, None, None, 0, 0, 0)
        return future.failure(self.message_error) if self.message_error else future.success(None)

    def send_offsets_to_transaction(self, offsets: object, place: object) -> None:
        """
        Send offsets.
        """
        self._called("offsets")

    def flush(self, timeout: float) -> None:
        """
        Wait.
        """
        self._called("flush")

    def commit_transaction(self) -> None:
        """
        Commit.
        """
        self._called("commit")
        self.on_commit()

    def abort_transaction(self) -> None:
        """
        Abort.
        """
        self._called("abort")

    def close(self, timeout: float) -> None:
        """
        Close.
        """
        self._called("close")


def stand_ins(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    """
    The class of the stand-in, in the place of kafka-python's and with nothing gone wrong.
    """
    StandIn.made, StandIn.faults, StandIn.message_error = [], {}, None
    StandIn.on_commit = staticmethod(lambda: None)
    monkeypatch.setattr(kafka_outbox, "KafkaProducer", StandIn)
    monkeypatch.setattr(kafka_outbox, "require_topics", lambda *_, **__: None)
    return StandIn


def outbox(counts: Counts | None = None, settings: KafkaSettings = SETTINGS) -> KafkaOutbox:
    """
    An outbox for transactions.
    """
    return KafkaOutbox(settings, counts or Counts(), client_id="test", transactional_id="touchstone-0")


def transact(box: KafkaOutbox, membership: GroupMembership = MEMBER) -> bool:
    """
    One transaction of two messages.
    """
    return box.transact([release(VERDICTS, UPLOADS, 7), release(VERDICTS, UPLOADS, 8)], {UPLOADS: 9}, membership)
