"""
A replay run whose verdicts go to a topic: each transaction holds verdicts, the next offsets to read and the totals.

Progress is committed under the run's own consumer group, with the totals as the offsets' metadata. The plan lies in a
second group (the same name and ``.plan``): per partition its start as offset, and its end with all else as metadata. So
any machine can take a run over, for as long as the brokers keep the offsets of idle groups (a week by default).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import kafka.errors as kafka_errors
from kafka import TopicPartition
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata
from pydantic import ValidationError

from worker.adapters.kafka_client import START_TIMEOUT_S, admin_client, starting, told
from worker.adapters.kafka_outbox import KafkaOutbox
from worker.domain import Partition, Release
from worker.errors import CannotStart, PublishFailed
from worker.flow.replay_run import PLANS, TOTALS, RunPlan, RunState, RunTotals, Stretch
from worker.ports import GroupMembership, Recorder
from worker.settings.tree import KafkaSettings

PLAN_SUFFIX: Final = ".plan"
ASK_AGAIN_S: Final = 0.1


def run_group(settings: KafkaSettings, run_id: str) -> str:
    """
    The consumer group under which a run's progress is committed, which is its transactional id as well.
    """
    return f"{settings.group_id}.replay.{run_id}"


class KafkaRun:
    """
    Implements ``worker.flow.replay_run.RunOutput``; of two processes with one run, the later fences the earlier.

    ``settings.topics.verdicts`` is the topic to write to.
    """

    def __init__(self, settings: KafkaSettings, run_id: str, recorder: Recorder) -> None:
        self._settings = settings
        self._group = run_group(settings, run_id)
        self._recorder = recorder
        self._outbox: _RunOutbox | None = None
        self._plan: RunPlan | None = None

    def find(self, run_id: str | None) -> RunState | None:  # noqa: ARG002 - the group is the run's already
        """
        What the brokers keep of this run; None where they know nothing. Raises ``CannotStart`` when they do not answer.
        """
        plan = self._plan_of(self._committed(self._group + PLAN_SUFFIX))
        reached = self._committed(self._group)
        if plan is None and reached:
            raise CannotStart(
                f"Group {self._group} has come some way, but its plan ({self._group}{PLAN_SUFFIX}) is gone: brokers "
                "keep it for offsets.retention.minutes. Replay to another --out under another --run-id"
            )
        return None if plan is None else _state_of(plan, reached)

    def _plan_of(self, kept: Mapping[TopicPartition, Any]) -> RunPlan | None:
        if not kept:
            return None
        stretches: dict[int, Stretch] = {}
        documents = []
        try:
            for at, stored in kept.items():
                document = json.loads(stored.metadata)
                stretches[at.partition] = Stretch(stored.offset, int(document.pop("end")))
                documents.append(document)
            plan = PLANS.validate_python(documents[0] | {"stretches": stretches})
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise CannotStart(
                f"Group {self._group}{PLAN_SUFFIX} holds no plan of a replay ({type(error).__name__}): another release "
                "or another program committed there. Take another --run-id"
            ) from error
        return plan

    def begin(self, plan: RunPlan) -> RunState:
        """
        Take the transactional id, then commit the plan.
        """
        self._start(plan)
        common = PLANS.dump_python(plan, mode="json", exclude={"stretches"})
        self._store(
            self._group + PLAN_SUFFIX,
            {
                TopicPartition(plan.topic, number): OffsetAndMetadata(
                    stretch.start, json.dumps(common | {"end": stretch.end}), -1
                )
                for number, stretch in plan.stretches.items()
            },
        )
        return RunState.new(plan)

    def resume(self, found: RunState) -> RunState:
        """
        Fence whoever had the run, and ask how far it had come once its last transaction is decided.
        """
        self._start(found.plan)
        return _state_of(found.plan, self._committed(self._group))

    def _start(self, plan: RunPlan) -> None:
        self._plan = plan
        self._outbox = _RunOutbox(
            self._settings, self._recorder, client_id=f"touchstone-replay-{plan.run_id}", transactional_id=self._group
        )

    def write(self, releases: Sequence[Release], offsets: Mapping[Partition, int], totals: RunTotals) -> None:
        """
        One transaction. Raises ``ProducerFenced`` once another process has taken the run over, or ``PublishFailed``.
        """
        if self._outbox is None:
            raise RuntimeError("begin or resume comes before write")
        self._outbox.metadata = TOTALS.dump_json(totals).decode()
        # The transactional id fences: whoever takes the run over starts under the same one, before it reads progress.
        place = GroupMembership(ConsumerGroupMetadata(self._group, -1, "", None))
        if not self._outbox.transact(releases, offsets, place):
            raise PublishFailed(
                f"Kafka refused the offsets of group {self._group}: a consumer has joined it. Stop that consumer, and "
                "go on with --run-id"
            )

    def finish(self, totals: RunTotals) -> None:
        """
        Commit the ends: behind the last upload there may be marks of transactions.
        """
        if self._plan is None:
            raise RuntimeError("begin or resume comes before finish")
        kept = TOTALS.dump_json(totals).decode()
        ends = {
            TopicPartition(self._plan.topic, number): OffsetAndMetadata(stretch.end, kept, -1)
            for number, stretch in self._plan.stretches.items()
        }
        self._store(self._group, ends)

    def _store(self, group: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        answers = self._asked(lambda admin: _stored(admin, group, offsets))
        refused = {at: error for at, error in answers.items() if error is not kafka_errors.NoError}
        for at, error in refused.items():
            raise CannotStart(f"Kafka refused to keep the run's state of {at.topic}-{at.partition}: {told(error())}")

    def _committed(self, group: str) -> dict[TopicPartition, Any]:
        found: Mapping[TopicPartition, Any] = self._asked(lambda admin: admin.list_group_offsets(group)).get(group, {})
        return {at: stored for at, stored in found.items() if stored.offset >= 0}

    def _asked(self, question: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - kafka-python is untyped
        # A cluster's first group waits for the topic of offsets to be made; kafka-python does not wait for that.
        give_up_s = time.monotonic() + START_TIMEOUT_S
        with starting(self._settings, START_TIMEOUT_S), admin_client(self._settings) as admin:
            while True:
                try:
                    return question(admin)
                except kafka_errors.KafkaError as error:
                    if not error.retriable or time.monotonic() > give_up_s:
                        raise
                    time.sleep(ASK_AGAIN_S)

    def close(self) -> None:
        """
        Release the producer.
        """
        if self._outbox is not None:
            self._outbox.close()


class _RunOutbox(KafkaOutbox):
    """
    An outbox whose transactions are a run's: of no member of a group, with metadata beside each offset.
    """

    metadata = ""

    def _may_commit(self, place: ConsumerGroupMetadata) -> bool:  # noqa: ARG002 - nobody else knows this group
        return True

    def _positions(self, offsets: Mapping[Partition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
        positions = super()._positions(offsets)
        return {at: stored._replace(metadata=self.metadata) for at, stored in positions.items()}


def _stored(admin: Any, group: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> Any:  # noqa: ANN401 - kafka-python is untyped
    answers = admin.alter_group_offsets(group, dict(offsets))
    for error in answers.values():
        if getattr(error, "retriable", False):
            raise error
    return answers


def _state_of(plan: RunPlan, kept: Mapping[TopicPartition, Any]) -> RunState:
    positions = {at.partition: stored.offset for at, stored in kept.items() if at.topic == plan.topic}
    # Totals only rise, and each transaction writes them to the partitions that it moves.
    totals = max((TOTALS.validate_json(stored.metadata) for stored in kept.values()), key=_size, default=RunTotals())
    ended = all(positions.get(number) == stretch.end for number, stretch in plan.stretches.items())
    return RunState(plan, positions, totals, finished=ended)


def _size(totals: RunTotals) -> int:
    return totals.replayed + totals.dead_letters
