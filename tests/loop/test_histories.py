"""
Random histories: two workers on one topic, through rebalances, refusals, crashes and expulsions, in any order.

The two promises of delivery, and order and conservation with them, hold at the end of each; the world looks after each
commit on the way.
"""

from collections.abc import Callable
from typing import Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.loop_rig import Tuning, Worker
from tests.loop_world import MISSING, World

Delivery = Literal["at_least_once", "exactly_once"]

PARTITIONS = 3
WORKERS = ("one", "two")

events = st.tuples(
    st.sampled_from(["good", "good", "good", "twin", "twin", "missing", "unreadable"]), st.integers(0, PARTITIONS - 1)
)
deeds = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.lists(events, min_size=1, max_size=6)),
        st.tuples(st.sampled_from(["step", "step", "step", "crash", "expel"]), st.sampled_from(WORKERS)),
        st.tuples(st.sampled_from(["rebalance", "refuse", "hold", "release"]), st.none()),
    ),
    min_size=4,
    max_size=24,
)
histories = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


class History:
    """
    Two workers, and what befalls them.
    """

    def __init__(self, world: World, delivery: Delivery) -> None:
        self.world = world
        self.tuning = Tuning(
            delivery=delivery,
            fetch_threads=2,
            decode_threads=1,
            max_in_flight=8,
            batch_deadline_s=0.0005,
            max_messages=3,
        )
        self.workers = {name: Worker(world, self.tuning, name=name) for name in WORKERS}

    def publish(self, events: list[tuple[str, int]]) -> None:
        """
        Events of these kinds, in these partitions.
        """
        for kind, partition in events:
            name = f"upload-{len(self.world.positions)}"
            if kind == "unreadable":
                self.world.publish_raw(name, b"no json", partition=partition)
            else:
                picture = {"good": name, "twin": "twin", "missing": MISSING}[kind]
                self.world.publish(name, partition=partition, picture=picture)

    def step(self, name: str) -> None:
        """
        One step of one worker.
        """
        self.workers[name].loop.step()

    def crash(self, name: str) -> None:
        """
        One worker dies without a word and is started again.
        """
        self.workers[name].vanish()
        self.workers[name] = Worker(self.world, self.tuning, name=name)

    def expel(self, name: str) -> None:
        """
        The group gives one worker up, which finds out at its next poll.
        """
        self.world.kafka.group.expel(self.workers[name].source.member)

    def befall(self, deed: str) -> None:
        """
        Something happens to Kafka.
        """
        faults = self.world.kafka.faults
        if deed == "rebalance":
            self.world.kafka.group.rebalance()
        elif deed == "refuse":
            faults.commits_refused += 1
            faults.transactions_refused += 1
        elif deed == "hold":
            faults.acknowledgements_held = True
        else:
            self.world.kafka.release_acknowledgements()

    def end(self) -> None:
        """
        Both workers go on until all is answered and committed.
        """
        self.world.kafka.release_acknowledgements()
        for _ in range(2000):
            if self.world.all_answered() and self.world.all_committed():
                return
            for worker in self.workers.values():
                worker.loop.step()
        raise AssertionError("the workers do not come to an end")


def live(history: History, deeds: list[tuple[str, object]]) -> None:
    """
    One deed after the other, to the end.
    """
    calls: dict[str, Callable[..., None]] = {
        "publish": history.publish,
        "step": history.step,
        "crash": history.crash,
        "expel": history.expel,
    }
    for deed, what in deeds:
        if deed in calls:
            calls[deed](what)
        else:
            history.befall(deed)
        history.world.require_nothing_committed_early()
    history.end()


def last_of_each(names: list[str]) -> list[str]:
    """
    The names in the order in which each stands for the last time.
    """
    return list(reversed(dict.fromkeys(reversed(names))))


@histories
@given(deeds=deeds)
def test_at_least_once_through_any_history(deeds: list[tuple[str, object]]) -> None:
    """
    Each upload is answered, duplicates share their ids, and the last answers of a partition stand in its order.
    """
    with World(partitions=PARTITIONS) as world:
        live(History(world, "at_least_once"), deeds)
        published = list(world.positions)
        ids = {(one.content_id, one.verdict_id) for one in world.verdicts()}
        letters = {(one.original.partition, one.original.offset) for one in world.dead_letters()}

        assert set(published) == set(world.ends())
        assert len(published) == len(ids) + len(letters)
        for partition in range(PARTITIONS):
            found = last_of_each(world.judged(partition))
            assert [name for name in published if name in found] == found


@histories
@given(deeds=deeds)
def test_exactly_once_through_any_history(deeds: list[tuple[str, object]]) -> None:
    """
    A read_committed reader finds exactly one outcome of each upload, in the order of its partition.
    """
    with World(partitions=PARTITIONS) as world:
        live(History(world, "exactly_once"), deeds)
        published = list(world.positions)

        assert dict.fromkeys(published, 1) == {name: len(ends) for name, ends in world.ends().items()}
        for partition in range(PARTITIONS):
            found = world.judged(partition)
            assert [name for name in published if name in found] == found
