"""
A replay run as a real broker keeps it: found, taken over, told in time, and changed by nobody who has lost it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import kafka.errors as kafka_errors
import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from tests.fake_outcomes import ManualClock
from tests.kafka_reader import Counts
from tests.kafka_worlds import RealWorld, release
from tests.servers import eventually
from worker.adapters.kafka_run import RENEW_EVERY_S, KafkaRun
from worker.adapters.kafka_run_state import PLAN_SUFFIX, find_run, run_group
from worker.dev.servers import KafkaAt
from worker.domain import Partition
from worker.errors import CannotStart, ProducerFenced
from worker.flow.replay_run import RunPlan, RunState, RunTotals, Stretch

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

RUN = "of-a-test"
DECIDED = {"Empty", "CompleteCommit", "CompleteAbort"}
THREE = RunTotals(replayed=2, from_embeddings=1, fetched=1, dead_letters=1)


class Runs:
    """
    One run on a broker, and the processes that write it.
    """

    def __init__(self, world: RealWorld, stack: ExitStack) -> None:
        self.world = world
        self.clock = ManualClock()
        self.stack = stack
        stretches = {0: Stretch(0, 9), 1: Stretch(3, 5)}
        self.plan = RunPlan(RUN, world.uploads, "topic:out", "beginning", "end", {"bank": "a"}, stretches)
        self.group = run_group(world.settings, RUN)

    def process(self) -> KafkaRun:
        """
        One that has begun nothing yet.
        """
        return self.stack.enter_context(closing(KafkaRun(self.world.settings, RUN, Counts(), self.clock)))

    def write(self, process: KafkaRun, offset: int, totals: RunTotals = THREE) -> None:
        """
        One verdict on partition 0, up to this offset.
        """
        at = Partition(self.world.uploads, 0)
        process.write([release(self.world.verdicts, at, offset)], {at: offset}, totals)

    def found(self) -> RunState | None:
        """
        What the broker keeps.
        """
        self.settle()
        return find_run(self.world.settings, RUN)

    def forget_plan(self) -> None:
        """
        As brokers do with a group of which they have long heard nothing.
        """
        self.settle()
        self.world.admin.delete_groups([self.group + PLAN_SUFFIX])

    def forget_progress(self, number: int) -> None:
        """
        Likewise, with one partition of it.
        """
        self.settle()
        at = TopicPartition(self.world.uploads, number)
        answers = self.world.admin.delete_group_offsets(self.group, [at])
        assert {at: 0} == {one: error.errno for one, error in answers.items()}

    def settle(self) -> None:
        """
        Wait until the last transaction is decided: a broker confirms a commit before it shows the offsets of it.
        """
        assert eventually(self._decided, deadline_s=60), "a transaction stayed open"

    def _decided(self) -> bool:
        try:
            told = self.world.admin.describe_transactions([self.group])
        except kafka_errors.TransactionalIdNotFoundError:
            return True  # nobody has begun the run
        except kafka_errors.KafkaError as error:
            if not error.retriable:
                raise
            return False
        return told[self.group].state in DECIDED


@pytest.fixture
def runs(kafka: KafkaAt, topic_name: str) -> Iterator[Runs]:
    """
    A run that nobody has begun.
    """
    with RealWorld(kafka.bootstrap_servers, topic_name) as world, ExitStack() as stack:
        yield Runs(world, stack)


def test_a_run_is_found_as_it_was_left(runs: Runs) -> None:
    """
    Plan, positions and totals; one that is finished says so, and dead letters are counted once by whoever goes on.
    """
    before, first = runs.found(), runs.process()
    first.begin(runs.plan)
    begun = runs.found()
    runs.write(first, 4)
    written = runs.found()
    assert written is not None
    second = runs.process()
    state = second.resume(written)
    runs.write(second, 9, state.totals + RunTotals(replayed=1))
    second.finish(state.totals + RunTotals(replayed=1))
    finished = runs.found()

    assert before is None
    assert RunState(runs.plan, {0: 0, 1: 3}) == begun
    assert RunState(runs.plan, {0: 4, 1: 3}, THREE) == written == state
    whole = RunTotals(replayed=3, from_embeddings=1, fetched=1, dead_letters=1)
    assert RunState(runs.plan, {0: 9, 1: 5}, whole, finished=True) == finished
    assert 2 == len(runs.world.records(runs.world.verdicts))


def test_what_brokers_would_drop_is_committed_anew_within_the_hour(runs: Runs) -> None:
    """
    The plan, and the progress of a partition that does not move; not with every write, and by each process at once.
    """
    first = runs.process()
    first.begin(runs.plan)
    runs.forget_plan()
    runs.forget_progress(1)
    runs.clock.now_s += RENEW_EVERY_S - 1
    runs.write(first, 1)
    with pytest.raises(CannotStart, match=r"its plan .* is gone"):
        runs.found()
    runs.clock.now_s += 1
    runs.write(first, 2)
    renewed = runs.found()
    assert renewed is not None
    second = runs.process()
    second.resume(renewed)
    runs.forget_plan()
    runs.write(second, 3)
    resumed = runs.found()
    runs.forget_plan()
    second.finish(THREE)
    finished = runs.found()

    assert RunState(runs.plan, {0: 2, 1: 3}, THREE) == renewed
    assert RunState(runs.plan, {0: 3, 1: 3}, THREE) == resumed
    assert RunState(runs.plan, {0: 9, 1: 5}, THREE, finished=True) == finished


def test_who_lost_a_run_while_it_stood_still_stays_out(kafka: KafkaAt, topic_name: str) -> None:
    """
    It does not take the run back from whoever took it over amid a transaction, however late it comes.

    Nor does it believe the offsets of the live workers, who are far ahead on the same topic.
    """
    limits: dict[str, Any] = {"transaction_timeout_s": 1.5, "transaction_interval_s": 0.1}
    with RealWorld(kafka.bootstrap_servers, topic_name, **limits) as world, ExitStack() as stack:
        runs = Runs(world, stack)
        live = stack.enter_context(closing(KafkaConsumer(**world.client, group_id=world.settings.group_id)))
        at = TopicPartition(world.uploads, 0)
        live.assign([at])
        live.commit({at: OffsetAndMetadata(1_000, "", -1)})
        first, second = runs.process(), runs.process()
        first.begin(runs.plan)
        assert first._outbox is not None
        commit = first._outbox._producer.commit_transaction

        def commit_late() -> None:
            second.resume(RunState.new(runs.plan))
            threading.Event().wait(limits["transaction_timeout_s"])
            commit()

        first._outbox._producer.commit_transaction = commit_late
        with pytest.raises(ProducerFenced):
            runs.write(first, 2)
        runs.write(second, 7)
        found = runs.found()
        seen = len(world.records(world.verdicts))

    assert RunState(runs.plan, {0: 7, 1: 3}, THREE) == found
    assert 1 == seen


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda runs, process: runs.write(process, 8), id="write"),
        pytest.param(lambda _runs, process: process.finish(THREE), id="finish"),
    ],
)
def test_who_lost_a_run_changes_nothing_of_it(runs: Runs, act: Callable[[Runs, KafkaRun], None]) -> None:
    """
    Neither its plan nor its progress, and no verdict is seen, even where the plan was due to be committed anew.
    """
    first, second = runs.process(), runs.process()
    first.begin(runs.plan)
    found = runs.found()
    assert found is not None
    second.resume(found)
    runs.write(second, 4)
    runs.forget_plan()
    runs.clock.now_s += 2 * RENEW_EVERY_S
    with pytest.raises(ProducerFenced):
        act(runs, first)
    with pytest.raises(CannotStart, match=r"its plan .* is gone"):
        runs.found()
    runs.write(second, 5)

    assert RunState(runs.plan, {0: 5, 1: 3}, THREE) == runs.found()
    assert 2 == len(runs.world.records(runs.world.verdicts))


def test_of_two_that_begin_one_run_at_once_only_one_does(runs: Runs) -> None:
    """
    Both found nothing; the later one refuses, so that no upload is judged twice, and what was written stays.
    """
    first, second = runs.process(), runs.process()
    neither = (first.find(RUN), second.find(RUN))
    first.begin(runs.plan)
    runs.write(first, 4)
    with pytest.raises(CannotStart, match="begun by another replay a moment ago"):
        second.begin(runs.plan)

    assert (None, None) == neither
    assert RunState(runs.plan, {0: 4, 1: 3}, THREE) == runs.found()


def test_progress_that_was_dropped_in_part_is_not_taken_for_a_beginning(runs: Runs) -> None:
    """
    Going on from the start of that partition would write its verdicts twice.
    """
    process = runs.process()
    process.begin(runs.plan)
    runs.write(process, 4)
    runs.forget_progress(0)

    with pytest.raises(CannotStart, match=r"no longer says how far partition 0 .* Replay to another --out"):
        runs.found()


def test_what_another_program_commits_there_is_told(runs: Runs) -> None:
    """
    A consumer that took the run's group for its own leaves offsets without totals.
    """
    runs.process().begin(runs.plan)
    runs.settle()
    at = TopicPartition(runs.world.uploads, 0)
    stored = runs.world.admin.list_group_offsets(runs.group)[runs.group][at]
    runs.world.admin.alter_group_offsets(runs.group, {at: stored._replace(metadata="")})

    with pytest.raises(CannotStart, match="holds no progress of a replay"):
        runs.found()
