"""
A replay run whose verdicts go to a topic: each transaction holds verdicts, the next offsets to read and the totals.

All that is kept of the run is written by its transactional producer, so that a process whose run was taken over can
change nothing any more. How it is kept is in ``kafka_run_state.py``. Any machine can take a run over, for as long as
the brokers keep the offsets of groups without members (a week by default, from the run's last commit).
"""

from collections.abc import Mapping, Sequence
from typing import Final

from kafka.structs import ConsumerGroupMetadata

from worker.adapters.kafka_outbox import KafkaOutbox
from worker.adapters.kafka_run_state import (
    PLAN_SUFFIX,
    find_run,
    kept_of,
    plan_offsets,
    progress_offsets,
    run_group,
    state_of,
)
from worker.domain import Partition
from worker.errors import CannotStart, PublishFailed
from worker.flow.replay_run import RunPlan, RunState, RunTotals
from worker.outcomes import Release
from worker.ports import Clock, GroupMembership, Recorder
from worker.settings.tree import KafkaSettings

RENEW_EVERY_S: Final = 3_600.0
"""
How old what the brokers keep of a run may become while it is written.

They drop each partition's offset when it was committed longer than offsets.retention.minutes ago (a week by default):
the plan, which never changes, and the progress of a partition that was read to its end. An hour is far below any
retention in use, and one more request in an hour costs nothing.
"""


class KafkaRun:
    """
    Implements ``worker.flow.replay_run.RunOutput``; of two processes with one run, the later fences the earlier.

    ``settings.topics.verdicts`` is the topic to write to.
    """

    def __init__(self, settings: KafkaSettings, run_id: str, recorder: Recorder, clock: Clock) -> None:
        self._settings = settings
        self._run_id = run_id
        self._group = run_group(settings, run_id)
        self._recorder = recorder
        self._clock = clock
        self._outbox: _RunOutbox | None = None
        self._positions: dict[int, int] = {}
        self._renewed_s: float | None = None

    def find(self, run_id: str | None) -> RunState | None:  # noqa: ARG002 - the group is the run's already
        """
        What the brokers keep of this run; None where they know nothing.

        Raises ``CannotStart`` when they do not answer, or have dropped a part of it.
        """
        return find_run(self._settings, self._run_id)

    def begin(self, plan: RunPlan) -> RunState:
        """
        Take the transactional id, then commit the plan with every partition's start.

        Raises ``CannotStart`` where another process has begun the run meanwhile.
        """
        state = RunState.new(plan)
        self._start(state)
        # Looked at again now that nobody else can write: the model was loaded since ``find``.
        if any(kept_of(self._settings, self._group)):
            raise CannotStart(
                f"Run {self._run_id} was begun by another replay a moment ago, which is stopped by this one. Go on "
                "with it by the same command, or take another --run-id"
            )
        self._commit((), self._positions, RunTotals())
        return state

    def resume(self, found: RunState) -> RunState:
        """
        Fence whoever had the run, and ask how far it had come once its last transaction is decided.
        """
        self._start(found)
        _, reached = kept_of(self._settings, self._group)
        state = state_of(self._group, found.plan, reached)
        self._positions = dict(state.positions)
        return state

    def _start(self, state: RunState) -> None:
        self._positions = {number: stretch.start for number, stretch in state.plan.stretches.items()}
        self._outbox = _RunOutbox(self._settings, self._recorder, state.plan, transactional_id=self._group)

    def write(self, releases: Sequence[Release], offsets: Mapping[Partition, int], totals: RunTotals) -> None:
        """
        One transaction. Raises ``ProducerFenced`` once another process has taken the run over, or ``PublishFailed``.
        """
        self._commit(releases, {partition.number: offset for partition, offset in offsets.items()}, totals)

    def finish(self, totals: RunTotals) -> None:
        """
        Commit the ends: behind the last upload there may be marks of transactions. Raises as ``write`` does.
        """
        # Renewed, so that a finished run is known to be finished for the whole of the brokers' retention.
        self._renewed_s = None
        self._commit((), self._opened().ends, totals)

    def _commit(self, releases: Sequence[Release], moved: Mapping[int, int], totals: RunTotals) -> None:
        outbox, now_s = self._opened(), self._clock.monotonic_s()
        positions = {**self._positions, **moved}
        outbox.totals = totals
        outbox.renews = self._renewed_s is None or now_s - self._renewed_s >= RENEW_EVERY_S
        told = positions if outbox.renews else moved
        # The transactional id fences: whoever takes the run over starts under the same one, before it reads progress.
        place = GroupMembership(ConsumerGroupMetadata(self._group, -1, "", None))
        if not outbox.transact(releases, outbox.offsets(told), place):
            raise PublishFailed(
                f"Kafka refused the offsets of group {self._group}: a consumer has joined it. Stop that consumer, and "
                "go on with --run-id"
            )
        self._positions = positions
        if outbox.renews:
            self._renewed_s = now_s

    def _opened(self) -> "_RunOutbox":
        if self._outbox is None:
            raise RuntimeError("begin or resume comes before write and finish")
        return self._outbox

    def close(self) -> None:
        """
        Release the producer.
        """
        if self._outbox is not None:
            self._outbox.close()


class _RunOutbox(KafkaOutbox):
    """
    An outbox whose transactions are a run's: of no member of a group, with the totals beside each offset.

    While ``renews``, they hold the plan as well.
    """

    def __init__(self, settings: KafkaSettings, recorder: Recorder, plan: RunPlan, *, transactional_id: str) -> None:
        self.totals = RunTotals()
        self.renews = False
        self._plan = plan
        client_id = f"touchstone-replay-{plan.run_id}"
        super().__init__(settings, recorder, client_id=client_id, transactional_id=transactional_id)

    @property
    def ends(self) -> dict[int, int]:
        """
        Where each partition of the run ends.
        """
        return {number: stretch.end for number, stretch in self._plan.stretches.items()}

    def offsets(self, positions: Mapping[int, int]) -> dict[Partition, int]:
        """
        Positions, of partitions of the run's topic.
        """
        return {Partition(self._plan.topic, number): offset for number, offset in positions.items()}

    def _may_commit(self, place: ConsumerGroupMetadata) -> bool:  # noqa: ARG002 - nobody else knows this group
        return True

    def _add_offsets(self, offsets: Mapping[Partition, int], place: ConsumerGroupMetadata) -> None:
        positions = {at.number: offset for at, offset in offsets.items()}
        self._producer.send_offsets_to_transaction(progress_offsets(self._plan.topic, positions, self.totals), place)
        if self.renews:
            of_plan = ConsumerGroupMetadata(place.group_id + PLAN_SUFFIX, -1, "", None)
            self._producer.send_offsets_to_transaction(plan_offsets(self._plan), of_plan)
