"""
What the flow tells of itself: the backlog, waits, the encoder's share, the standing in Kafka, and health from these.
"""

from kafka import TopicPartition

from tests.fake_outcomes import ManualClock
from tests.stand_in_consumer import ONE, ZERO, StandIn, place
from worker.adapters.kafka_acknowledgements import Acknowledgements
from worker.adapters.kafka_lag import LagWatch
from worker.domain import Partition, RawEvent
from worker.flow.backlog import Backlog
from worker.flow.busy import BusyMeter
from worker.flow.inbox import Inbox
from worker.flow.micro_batch import MicroBatcher
from worker.flow.progress import LoopProgress
from worker.flow.queues import Queues
from worker.operation.health import alive, ready, started
from worker.ports import Standing
from worker.telemetry.metrics import InMemoryRecorder

FIRST, SECOND = Partition("uploads", 0), Partition("uploads", 1)


def taken(partition: Partition, offset: int, received_at_s: float) -> RawEvent:
    """
    A record that was polled at this moment.
    """
    return RawEvent(partition, offset, key=None, value=None, received_at_s=received_at_s)


def test_the_oldest_uncommitted_is_told_for_each_partition() -> None:
    """
    From taken to committed, through a commit in the middle, and not beyond a revocation.
    """
    backlog = Backlog()
    for offset in (5, 6, 9):
        backlog.take(taken(FIRST, offset, 100.0 + offset))
    backlog.take(taken(SECOND, 1, 300.0))

    assert backlog.oldest_received_s() == {FIRST: 105.0, SECOND: 300.0}
    backlog.commit({FIRST: 7})
    assert backlog.oldest_received_s() == {FIRST: 109.0, SECOND: 300.0}
    backlog.commit({FIRST: 10, SECOND: 1})
    assert backlog.oldest_received_s() == {FIRST: None, SECOND: 300.0}
    backlog.forget({SECOND})
    assert backlog.oldest_received_s() == {FIRST: None}
    backlog.commit({SECOND: 5})
    assert backlog.oldest_received_s() == {FIRST: None}


def test_the_share_is_that_of_the_last_seconds() -> None:
    """
    What lies before the window is not counted, what is under way is.
    """
    clock = ManualClock()
    meter = BusyMeter(clock, window_s=10)
    with meter:
        clock.now_s = 4.0
    clock.now_s = 10.0
    assert meter.share() == 0.4
    clock.now_s = 12.0
    assert meter.share() == 0.2
    with meter:
        clock.now_s = 17.0
        assert meter.share() == 0.5
    clock.now_s = 100.0
    assert meter.share() == 0.0


def test_queues_tell_how_many_wait_and_for_how_long() -> None:
    """
    An inbox and a micro-batcher measure each item when it is taken.
    """
    clock, recorder = ManualClock(), InMemoryRecorder()
    queues = Queues(clock=clock, recorder=recorder)
    inbox: Inbox[int] = queues.inbox("recall")
    batcher: MicroBatcher[int] = queues.batcher("encode", size=2, deadline_s=60)
    for item in range(3):
        inbox.put(item)
        batcher.put(item)
    clock.now_s = 2.0

    assert queues.waiting() == {"recall": 3, "encode": 3}
    assert batcher.take() == ([0, 1], "size")
    queues.close()
    assert list(inbox.batches(8)) == [[0, 1, 2]]
    found = recorder.snapshot()
    assert found['queue_wait_seconds_count{stage="recall"}'] == 3
    assert found['queue_wait_seconds_sum{stage="recall"}'] == 6.0
    assert found['queue_wait_seconds_count{stage="encode"}'] == 2
    assert found['queue_wait_seconds_max{stage="encode"}'] == 2.0


class Placed(StandIn):
    """
    A stand-in that knows positions, as kafka-python keeps them.
    """

    def __init__(self, positions: dict[TopicPartition, int | None]) -> None:
        super().__init__()
        self._subscription = Subscription(positions)


class Subscription:
    """
    As much of kafka-python's as is looked at.
    """

    def __init__(self, positions: dict[TopicPartition, int | None]) -> None:
        self.assignment = {partition: State(offset) for partition, offset in positions.items()}


class State:
    """
    The state of one partition; its position is None until it was looked up.
    """

    def __init__(self, offset: int | None) -> None:
        self.position = None if offset is None else Position(offset)


class Position:
    """
    The next record's offset.
    """

    def __init__(self, offset: int) -> None:
        self.offset = offset


def of(partition: TopicPartition) -> Partition:
    """
    The same in our words.
    """
    return Partition(partition.topic, partition.partition)


def test_lag_is_what_lies_before_the_end() -> None:
    """
    Unknown until both the position and the end are known; looked up once in a while only.
    """
    now = [0.0]
    watch = LagWatch(every_s=1.0, monotonic_s=lambda: now[0])
    consumer = Placed({ZERO: 40, ONE: None})
    assert watch.standing == Standing(joined=False)
    consumer.ends = {ZERO: 100, ONE: 7}
    watch.look(consumer)
    assert watch.standing == Standing(joined=True, lag={of(ZERO): 60, of(ONE): None})

    consumer.ends = {ZERO: 200}
    now[0] = 0.9
    watch.look(consumer)
    assert watch.standing.lag[of(ZERO)] == 60
    now[0] = 1.0
    consumer.assigned = {ZERO}
    consumer.place = place(3, state="rebalancing")
    watch.look(consumer)
    assert watch.standing == Standing(joined=False, lag={of(ZERO): 160})


def test_lag_of_a_consumer_that_keeps_positions_elsewhere_is_unknown() -> None:
    """
    Another version of kafka-python costs the metric, and nothing else.
    """
    watch = LagWatch()
    consumer = StandIn()
    consumer.ends = {ZERO: 100, ONE: 100}
    watch.look(consumer)

    assert watch.standing.lag == {of(ZERO): None, of(ONE): None}


def test_the_oldest_unacknowledged_outcome_is_told() -> None:
    """
    0 where none waits.
    """
    now = [0.0]
    waiting = Acknowledgements(timeout_s=60, monotonic_s=lambda: now[0])
    assert waiting.oldest_s == 0
    first, second = waiting.expect(FIRST, 1), waiting.expect(FIRST, 2)
    now[0] = 5.0
    assert waiting.oldest_s == 5.0
    waiting.settle(first)
    waiting.settle(second)
    assert waiting.oldest_s == 0


def test_a_worker_that_loads_lives_and_is_not_ready() -> None:
    """
    Before the loop there is nothing that could stall.
    """
    live = alive(None, now_s=1e6, stalled_after_s=30)

    assert live.ok
    assert not started(running=False).ok
    assert started(running=True).ok
    assert ready(None, None, live, producer=True).checks == {"loaded": "the model and the bank are being loaded"}


def test_a_loop_that_does_not_turn_is_not_alive() -> None:
    """
    Beyond the configured time, and whatever Kafka says.
    """
    progress = LoopProgress(turned_s=100.0)

    assert alive(progress, now_s=130.0, stalled_after_s=30).ok
    stalled = alive(progress, now_s=130.5, stalled_after_s=30)
    assert not stalled.ok
    assert stalled.checks == {"loop": "the loop has not turned for 30.5 s, at most 30 s is well"}


def test_readiness_names_each_reason() -> None:
    """
    No group, a producer that waits, a drain, a stall: each is told by name, and all together.
    """
    well = LoopProgress(turned_s=100.0)
    draining = LoopProgress(turned_s=0.0, draining=True)
    live = alive(well, now_s=100.0, stalled_after_s=30)
    member, nobody = Standing(joined=True), Standing(joined=False)

    assert ready(well, member, live, producer=True).ok
    assert set(wrong(ready(well, nobody, live, producer=True).checks)) == {"group"}
    assert set(wrong(ready(well, member, live, producer=False).checks)) == {"producer"}
    stalled = alive(draining, now_s=100.0, stalled_after_s=30)
    checks = ready(draining, nobody, stalled, producer=False).checks
    assert set(wrong(checks)) == {"group", "producer", "draining", "loop"}


def wrong(checks: dict[str, str]) -> list[str]:
    """
    The names of what is not ok.
    """
    return [name for name, said in checks.items() if said != "ok"]
