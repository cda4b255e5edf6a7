"""
What the consumer group does to this worker: partitions given, taken and lost, each recorded when it happens.

Four things of kafka-python 3.0.12 are mended here: they would leave a partition with two owners or with none, or
have it read on from an old position. Each is told where it is mended. Polling and committing: ``kafka_source.py``.
"""

import threading
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import MemberState

from worker.domain import Partition
from worker.ports import Recorder


class OwnedNowAssignor(CooperativeStickyAssignor):  # type: ignore[misc] # kafka-python is untyped
    """
    Cooperative-sticky assignment that claims what the consumer owns now.

    kafka-python's own claims what it was given last, even when it has lost that since. The group's leader then keeps
    these partitions from everybody else, and nobody reads them until the next rebalance.
    """

    def __init__(self, owned: Callable[[], AbstractSet[TopicPartition]]) -> None:
        super().__init__()
        self._owned = owned

    def metadata(self, topics: Iterable[str]) -> Any:  # noqa: ANN401 - kafka-python is untyped
        """
        The subscription to send when joining, with the partitions owned at this moment.
        """
        self.member_assignment = sorted(self._owned())
        return super().metadata(topics)


class GroupWatch(ConsumerRebalanceListener):  # type: ignore[misc] # kafka-python is untyped
    """
    Records rebalances; made before the consumer, which it is told by ``watch``.

    The callbacks run on kafka-python's IO thread, where a blocking call raises: they only record. In 3.0.12 they run
    while the consumer's own thread waits in ``poll`` or ``close``; nothing here depends on that.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._lock = threading.Lock()
        self._taken: set[TopicPartition] = set()
        self._given_to: dict[TopicPartition, str] = {}
        self._consumer: Any = None

    def watch(self, consumer: Any) -> None:  # noqa: ANN401 - kafka-python is untyped
        """
        Record what happens to ``consumer``; before it subscribes.
        """
        self._consumer = consumer

    def owned(self) -> AbstractSet[TopicPartition]:
        """
        The partitions that the consumer owns now.
        """
        owned: set[TopicPartition] = self._consumer.assignment()
        return owned

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """
        Remember as which member of the group we were given them.
        """
        member_id = self._consumer.group_metadata().member_id
        with self._lock:
            self._given_to |= dict.fromkeys(assigned, member_id)
        self._count("assigned", assigned)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """
        They go to another member once we have rejoined.
        """
        self._take("revoked", revoked)

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """
        The group expelled us: another member may have them already.
        """
        self._take("lost", lost)

    def lose_all(self) -> None:
        """
        Record everything as lost, because the consumer was expelled and did not say so.
        """
        with self._lock:
            everything = set(self._given_to)
        self._take("lost", everything)

    def take_revoked(self) -> frozenset[Partition]:
        """
        What was revoked or lost since the last call.
        """
        with self._lock:
            taken, self._taken = self._taken, set()
        return frozenset(Partition(topic, number) for topic, number in taken)

    def expelled_unnoticed(self) -> bool:
        """
        Whether the consumer holds partitions that were given to another membership than its present one.

        When the group expels a kafka-python consumer that is just rejoining, it comes back as a new member, keeps its
        partitions and its positions in them, and calls nobody, though another may have had them in between.
        """
        member_id = self._consumer.group_metadata().member_id
        with self._lock:
            return bool(member_id) and any(given != member_id for given in self._given_to.values())

    def _take(self, kind: str, partitions: Iterable[TopicPartition]) -> None:
        with self._lock:
            self._taken.update(partitions)
            for partition in partitions:
                self._given_to.pop(partition, None)
        forget_offset_fetches(self._consumer)
        self._count(kind, partitions)

    def _count(self, kind: str, partitions: Iterable[TopicPartition]) -> None:
        amount = len(set(partitions))
        if amount:
            self._recorder.count("rebalances_total", amount, kind=kind)


def forget_offset_fetches(consumer: Any) -> None:  # noqa: ANN401 - kafka-python is untyped
    """
    Drop the answers to questions for committed offsets that nobody waits for any more.

    kafka-python keeps such an answer until the same partitions are asked for again, however much later, and then takes
    it for the present one: a partition that went and came back would be read from where it was then. It has no public
    way to drop them; a version without this attribute keeps them elsewhere, or no longer does.
    """
    pending = getattr(getattr(consumer, "_coordinator", None), "_offset_fetch_futures", None)
    if pending is not None:
        pending.clear()


def need_rejoin(consumer: Any) -> bool:  # noqa: ANN401 - kafka-python is untyped
    """
    Whether the next poll begins to join the group again, as far as kafka-python says.
    """
    coordinator = getattr(consumer, "_coordinator", None)
    return coordinator is not None and bool(coordinator.need_rejoin())


def remember_join(consumer: Any) -> None:  # noqa: ANN401 - kafka-python is untyped
    """
    Make the next poll wait for a join that is under way, where kafka-python has forgotten that it is.

    It forgets when a member that leads the group rejoins because of the topic's metadata (partitions were added), and
    the poll ends before the join does: no later poll looks for the answer, no heartbeat is sent, and the member sits
    there for ever with nothing assigned. It has no public way to see that; compare ``forget_offset_fetches``.
    """
    coordinator = getattr(consumer, "_coordinator", None)
    if coordinator is None or consumer.group_metadata().state != MemberState.REBALANCING:
        return
    if not coordinator.need_rejoin():
        coordinator.request_rejoin()
