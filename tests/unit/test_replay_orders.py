"""
What a replay is told: ranges, destinations, other banks and policies, and a pace.
"""

import re
from pathlib import Path

import pytest

from tests.fake_outcomes import ManualClock
from worker.domain import Partition, RawEvent
from worker.errors import ConfigInvalid
from worker.flow.replay_run import Bound, RunPlan, RunState, RunTotals, Stretch
from worker.ports import GroupMembership, Polled
from worker.replay.bounds import parse_bound, require_forward
from worker.replay.destination import Destination, parse_destination, require_apart
from worker.replay.order import IN_FLIGHT_UNFETCHED, in_flight_limit, revised
from worker.replay.pace import Pace, PacedSource
from worker.replay.reached import Reached
from worker.settings.tree import Settings, TopicSettings


class Endless:
    """
    A source that fills whatever room it is given, and remembers what it was asked.
    """

    exhausted = False

    def __init__(self) -> None:
        self.asked: list[tuple[int, float]] = []

    def poll(self, *, room: int, wait_s: float) -> Polled:
        """
        As many events as there is room.
        """
        self.asked.append((room, wait_s))
        events = [RawEvent(Partition("uploads", 0), offset, None, None) for offset in range(room)]
        return Polled(frozenset(), events, GroupMembership(None))

    def commit(self, _offsets: object) -> bool:
        """
        Taken.
        """
        return True

    def close(self) -> None:
        """
        Nothing is held.
        """


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("beginning", Bound("beginning")),
        ("end", Bound("end")),
        ("0", Bound("offset", 0)),
        ("120000", Bound("offset", 120_000)),
        ("1970-01-01T00:00:01Z", Bound("time", 1_000)),
        ("1970-01-01T00:00:01", Bound("time", 1_000)),
        ("1970-01-01T02:00:01+02:00", Bound("time", 1_000)),
        ("1970-01-02", Bound("time", 86_400_000)),
    ],
)
def test_a_bound_is_an_offset_or_a_time(text: str, bound: Bound) -> None:
    """
    Digits are an offset, ISO 8601 is a time, in UTC where it names no zone.
    """
    assert parse_bound(text, "--from") == bound


@pytest.mark.parametrize("text", ["", "-1", "yesterday", "12:00", "1e3", "9" * 30])
def test_what_is_no_bound_is_refused(text: str) -> None:
    """
    The message names the option and shows what would do.
    """
    with pytest.raises(ConfigInvalid, match=r"--to is .*2026-11-20T08:00:00Z"):
        parse_bound(text, "--to")


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("5", "2"),
        ("2026-11-21", "2026-11-20T23:59:59Z"),
        ("2026-11-20T08:00:00Z", "2026-11-20T08:30:00+01:00"),
        ("end", "beginning"),
    ],
)
def test_a_range_that_ends_before_it_begins_is_refused(since: str, until: str) -> None:
    """
    The message names both options; times are compared as moments, whatever their zones.
    """
    with pytest.raises(ConfigInvalid, match=rf"--from {re.escape(since)} lies behind --to {re.escape(until)};"):
        require_forward(since, until)


@pytest.mark.parametrize(
    ("since", "until"),
    [("5", "5"), ("2", "5"), ("beginning", "end"), ("end", "7"), ("2030-01-01", None), (None, "2020-01-01")],
)
def test_a_range_that_may_be_empty_is_not_refused(since: str | None, until: str | None) -> None:
    """
    What only the topic can tell is told once it was asked; what is no bound is refused with its option.
    """
    require_forward(since, until)

    with pytest.raises(ConfigInvalid, match="--to is 'soon'"):
        require_forward(since, "soon")
    with pytest.raises(ConfigInvalid, match="--from is ''"):
        require_forward("", until)


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("replayed", Destination(topic="replayed")),
        ("topic:a.jsonl", Destination(topic="a.jsonl")),
        ("out/replayed", Destination(path=Path("out/replayed").absolute())),
        ("replayed.jsonl", Destination(path=Path("replayed.jsonl").absolute())),
        ("file:replayed", Destination(path=Path("replayed").absolute())),
    ],
)
def test_a_destination_is_a_topic_or_a_file(text: str, destination: Destination) -> None:
    """
    A slash or .jsonl makes a file, a prefix says which it is.
    """
    found = parse_destination(text)

    assert found == destination
    assert parse_destination(str(found)) == found


@pytest.mark.parametrize("text", ["", "topic:", "topic:a b", "what is this", "file:"])
def test_what_is_no_destination_is_refused(text: str) -> None:
    """
    Nothing is guessed.
    """
    with pytest.raises(ConfigInvalid, match="--out is"):
        parse_destination(text)


def test_live_topics_are_not_written_to() -> None:
    """
    Not the uploads, not the live verdicts unless they are meant, and none of the other topics in any case.
    """
    topics = TopicSettings()

    with pytest.raises(ConfigInvalid, match="--promote"):
        require_apart(Destination(topic=topics.verdicts), "uploads", topics, promote=False)
    with pytest.raises(ConfigInvalid, match="does not write into what it reads"):
        require_apart(Destination(topic="mine"), "mine", topics, promote=True)
    with pytest.raises(ConfigInvalid, match=r"kafka\.topics\.dead_letters"):
        require_apart(Destination(topic=topics.dead_letters), "uploads", topics, promote=True)
    require_apart(Destination(topic=topics.verdicts), "uploads", topics, promote=True)
    require_apart(Destination(path=Path("/a")), "uploads", topics, promote=False)


def test_a_run_goes_on_only_as_it_began() -> None:
    """
    Whatever would make verdicts of another kind is named, with what it was and what it is.
    """
    plan = RunPlan("r", "uploads", "topic:out", "beginning", "end", {"bank": "a", "policy": "p"}, {})
    other = RunPlan("r", "uploads", "topic:out", "5", "end", {"bank": "b", "policy": "p"}, {})

    assert plan.differences(plan) == []
    assert plan.differences(other) == ["from: began with beginning, now 5", "bank: began with a, now b"]


def test_what_is_left_of_a_run() -> None:
    """
    From the next offset of each partition to its end; partitions at their end are not there.
    """
    stretches = {0: Stretch(10, 20), 1: Stretch(5, 5), 2: Stretch(0, 4)}
    plan = RunPlan("r", "uploads", "topic:out", "beginning", "end", {}, stretches)

    assert RunState.new(plan).left() == {0: Stretch(10, 20), 2: Stretch(0, 4)}
    assert RunState(plan, {0: 15, 2: 4}).left() == {0: Stretch(15, 20)}
    assert RunTotals(1, 1) + RunTotals(2, 0, 1, 1, 1) == RunTotals(3, 1, 1, 1, 1)


def test_other_banks_and_policies_take_the_place_of_the_configured() -> None:
    """
    A bank by path stands in for a place of releases too; a local encoder without its hash is refused.
    """
    settings = Settings.model_validate({"bank": {"releases": "releases"}})
    changed = revised(settings, bank=Path("b"), policy=Path("p.toml"), model=None)

    assert (changed.bank.path, changed.bank.releases, changed.policy.path) == (Path("b"), None, Path("p.toml"))
    assert revised(settings, bank=None, policy=None, model=None) == settings
    with pytest.raises(ConfigInvalid, match="--model local-dir:x"):
        revised(settings, bank=None, policy=None, model="local-dir:x")


def test_the_pace_is_kept() -> None:
    """
    Over ten seconds at 50 a second 500 uploads are taken, whatever room there is, and one more at the start.
    """
    clock, source = ManualClock(), Endless()
    paced = PacedSource(source, Pace(50, clock))
    taken = len(paced.poll(room=1_000, wait_s=0.1).events)
    for _ in range(1_000):
        clock.now_s += 0.01
        taken += len(paced.poll(room=1_000, wait_s=0.1).events)

    assert taken == pytest.approx(501, abs=1)
    assert max(room for room, _ in source.asked) <= 5


def test_a_paced_source_waits_no_longer_than_it_may() -> None:
    """
    Without room by its pace it polls nothing, and waits for the next upload or the time allowed, whichever is shorter.
    """
    clock, source = ManualClock(), Endless()
    paced = PacedSource(source, Pace(0.1, clock))
    paced.poll(room=10, wait_s=0.1)
    paced.poll(room=10, wait_s=0.1)
    clock.now_s += 9.95
    paced.poll(room=10, wait_s=0.1)

    assert [room for room, _ in source.asked] == [1, 0, 0]
    assert source.asked[1][1] == pytest.approx(0.1)
    assert source.asked[2][1] == pytest.approx(0.05)


def test_the_configured_limit_holds_wherever_images_are_fetched() -> None:
    """
    What an operator set for the memory of a machine; without fetching more may be under way, and never less.
    """
    assert [7, 50_000] == [in_flight_limit(limit, fetch=True) for limit in (7, 50_000)]
    assert [IN_FLIGHT_UNFETCHED, 50_000] == [in_flight_limit(limit, fetch=False) for limit in (7, 50_000)]


def test_progress_goes_on_from_where_a_run_had_come_and_ends_at_its_end() -> None:
    """
    Though the last positions are marks of transactions, which no upload answers.
    """
    told: list[tuple[str, int, int]] = []
    plan = RunPlan("r", "uploads", "topic:out", "beginning", "end", {}, {0: Stretch(10, 20), 1: Stretch(0, 4)})
    reached = Reached(RunState(plan, {0: 15, 1: 4}), lambda *so_far: told.append(so_far), ManualClock())
    reached.advance({Partition("uploads", 0): 18})
    left = reached.left
    reached.end()

    assert [("replaying", 9, 14), ("replaying", 12, 14), ("replaying", 14, 14)] == told
    assert (2, 0) == (left, reached.left)


def test_the_groups_offsets_are_due_now_and_then() -> None:
    """
    Not with every write: each is a round trip.
    """
    clock = ManualClock()
    plan = RunPlan("r", "uploads", "file:/out", "beginning", "end", {}, {0: Stretch(0, 9)})
    reached = Reached(RunState.new(plan), lambda *_: None, clock)
    due = []
    for second in (1, 4, 5, 6, 9, 10):
        clock.now_s = float(second)
        due.append(reached.commit_is_due())

    assert [False, False, True, False, False, True] == due
