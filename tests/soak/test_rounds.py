"""
A campaign's rounds, and how they are judged: what a fault may bring about, and what is kept when one breaks off.

The fleet stands in for one with workers; real ones are in ``test_short_forms.py``.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast

import pytest
from kafka import TopicPartition
from kafka.errors import NotCoordinatorError
from kafka.structs import OffsetAndMetadata

from tests import platform_side
from tests.outcome_reader import OutcomeReader
from tests.platform_side import DEADLINE_S, Cluster, Event, Published
from tests.soak import fuzzing, watching
from tests.soak.append_times import Commit, commit_in, committed_early
from tests.soak.fleet import Fleet
from tests.soak.memory import drift
from tests.soak.rounds import Fault, run
from tests.soak.scale import Scale
from tests.soak.server_faults import broker_faults
from tests.soak.tally import Tally
from tests.soak.two_brokers import TwoBrokers
from tests.soak.worker_faults import fences, freezes, kills
from tests.worker_rig import Instruments

WAVE = 10
WORDS = "one ended by itself with 4: it is broken"


@dataclass
class StandInFleet:
    """
    Answers everything at once; ``crashing`` says in which round a worker ends by itself.
    """

    crashing: int = -1
    sent: int = 0
    rounds: int = 0
    crashes: int = 0
    settled: int = 0
    done: list[str] = field(default_factory=list)
    stops: Sequence[str] = ()

    def until_consuming(self) -> None:
        """
        At once.
        """

    def send(self, count: int) -> Sequence[Published]:
        """
        Into nothing.
        """
        self.sent += count
        return [Published(Event(b"key", b""), (0, number)) for number in range(self.sent - count, self.sent)]

    def until_some(self, sent: Sequence[Published], _share: float) -> None:
        """
        At once.
        """
        assert sent

    def until_answered(self, sent: Sequence[Published]) -> bool:
        """
        At once, but for a worker that crashes meanwhile.
        """
        self.crashes += self.rounds == self.crashing
        self.rounds += 1
        return len(sent) == WAVE

    def until_settled(self) -> None:
        """
        At once.
        """
        self.settled += 1

    def crashed_lately(self) -> Sequence[str]:
        """
        In the round that is over.
        """
        return [WORDS] if self.rounds - 1 == self.crashing else []

    def stop(self) -> Sequence[str]:
        """
        As it was told to.
        """
        return self.stops

    def tally(self, campaign: str, *, faults: int, rounds: int, took_s: float) -> Tally:
        """
        All was answered.
        """
        return Tally(
            campaign,
            faults=faults,
            rounds=rounds,
            sent=self.sent,
            terminal=self.sent,
            crashes=self.crashes,
            took_s=took_s,
        )


def ran(fleet: StandInFleet, *faults: Fault, rounds: int = 2) -> Tally:
    """
    The tally of a campaign of these faults.
    """
    return run(cast("Fleet", fleet), faults, campaign="rounds", rounds=rounds, wave=WAVE)


def nothing(_fleet: Fleet, _number: int) -> None:
    """
    A fault that harms nobody.
    """


def breaking(_fleet: Fleet, number: int) -> None:
    """
    A fault that finds something wrong in its second round.
    """
    assert number == 0, "the worker left with 3\nand a long log"


def test_a_crash_that_no_fault_explains_fails_the_campaign() -> None:
    """
    Every upload may be answered, by a worker that was started again: the row is not good, and says which round it was.
    """
    tally = ran(StandInFleet(crashing=1), Fault("quiet", nothing))

    assert not tally.good
    assert (1, (f"round 2, quiet: {WORDS}",)) == (tally.crashes, tally.wrong)


def test_a_crash_that_the_fault_may_bring_about_is_counted() -> None:
    """
    It stands in the table; before the next fault begins, all is committed and consuming again.
    """
    fleet = StandInFleet(crashing=0)
    tally = ran(fleet, Fault("away", nothing, may_crash=True))

    assert tally.good
    assert (1, 2) == (tally.crashes, fleet.settled)


def test_only_absent_brokers_and_a_fence_may_end_a_worker() -> None:
    """
    Whoever is killed or frozen is not said to have crashed, and Redis never ends a worker.
    """
    brokers = cast("TwoBrokers", None)
    may = {one.name for one in [kills(), freezes(), fences(), *broker_faults(brokers)] if one.may_crash}

    assert {"brokers away", "brokers frozen", "transaction fenced"} == may


def test_a_campaign_that_breaks_off_keeps_its_counts() -> None:
    """
    What was sent and answered until then is told beside where it broke off, and what the workers did at the end.
    """
    tally = ran(StandInFleet(stops=("one left with 3",)), Fault("breaking", breaking))

    assert not tally.good
    assert (2, 2 * WAVE - WAVE // 2, 2 * WAVE - WAVE // 2) == (tally.faults, tally.sent, tally.terminal)
    assert ("round 2, breaking: broke off, AssertionError: the worker left with 3", "one left with 3") == tally.wrong


class StaleAdmin:
    """
    Keeps the coordinator that it found first; a new one finds the present one.
    """

    made: ClassVar[list["StaleAdmin"]] = []

    def __init__(self, **_: str) -> None:
        self.made.append(self)
        self.stale = len(self.made) == 1
        self.closed = False

    def list_group_offsets(self, group: str) -> dict[str, dict[TopicPartition, OffsetAndMetadata]]:
        """
        From the coordinator.
        """
        if self.stale:
            raise NotCoordinatorError(group)
        return {group: {TopicPartition("uploads", 0): OffsetAndMetadata(7, "", -1)}}

    def close(self) -> None:
        """
        It is asked no more.
        """
        self.closed = True


def test_a_coordinator_that_moved_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With a new client, and not for ever with the one that has the old coordinator by heart.
    """
    monkeypatch.setattr(StaleAdmin, "made", [])
    monkeypatch.setattr(platform_side, "KafkaAdminClient", StaleAdmin)
    monkeypatch.setattr(watching, "KafkaAdminClient", StaleAdmin)
    monkeypatch.setattr(watching, "PATIENCE_S", 5.0)

    assert {0: 7} == watching.PatientCluster("nowhere:1", "group").committed()
    assert [True, False] == [one.closed for one in StaleAdmin.made]


def test_a_watch_that_broke_off_is_told_and_not_raised() -> None:
    """
    The tally has been counted by then, and would be lost.
    """

    class Broken:
        def committed(self) -> dict[int, int]:
            raise NotCoordinatorError("group")

    with watching.ToldWatch(cast("Cluster", Broken()), cast("OutcomeReader", None)) as watch:
        watch._thread.join(DEADLINE_S)
        (told,) = watch.ended()

    assert "broke off, NotCoordinatorError" in told


def test_a_commit_before_its_outcome_is_found_by_the_log() -> None:
    """
    By a millisecond, behind a gap and of what was never answered, though nobody asked at that moment.
    """
    appended = {(0, 0): 100, (0, 1): 105, (0, 3): 90, (1, 0): 200}
    fine = [Commit(0, 0, 50), Commit(0, 1, 100), Commit(0, 2, 105), Commit(0, 2, 300), Commit(1, 1, 201)]
    early = [Commit(0, 1, 99), Commit(0, 2, 104), Commit(0, 4, 300), Commit(1, 1, 199), Commit(2, 1, 300)]

    assert () == tuple(committed_early(appended, fine))
    assert len(early) == len(committed_early(appended, [*fine, *early]))


def test_a_commit_is_read_as_the_coordinator_writes_it() -> None:
    """
    Of this group and this topic; members, generations and others are passed over.
    """
    key = struct.pack(">hh5sh7si", 1, 5, b"group", 7, b"uploads", 3)
    value = struct.pack(">hqih", 3, 4711, -1, 0)

    assert [(3, 4711)] == list(commit_in(key, value, group="group", topic="uploads"))
    assert [] == list(commit_in(key, value, group="grou", topic="uploads"))
    assert [] == list(commit_in(key, value, group="group", topic="others"))
    assert [] == list(commit_in(struct.pack(">hh5s", 2, 5, b"group"), value, group="group", topic="uploads"))


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([50, 100, 101, 99, 104], []),
        ([50, 100, 104, 107, 110], ["the decoder's memory left its plateau by 10.0%"]),
        ([200, 100, 100, 100, 90], ["the decoder's memory left its plateau by 10.0%"]),
    ],
)
def test_memory_that_leaves_its_plateau_is_told(levels: Sequence[int], expected: Sequence[str]) -> None:
    """
    Of the worker and of its decoders alike: 5 % up or down, from the second fifth to the last.
    """
    told = drift("decoder", [one * 1_000_000 for one in levels])

    assert expected == [words.partition(":")[0] for words in told]


def test_a_file_of_fuzz_tests_that_ran_nothing_is_not_good(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    Where all tests are skipped pytest ends with 0; a row of the table is good only where something ran.
    """
    (tmp_path / "property").mkdir()
    skipped = tmp_path / "property" / "test_skipped_fuzz.py"
    text = f"import pytest\nBUDGET = {fuzzing.BUDGET!r}\n"
    skipped.write_text(f"{text}@pytest.mark.skip\ndef test_nothing(): ...\n", encoding="utf-8")
    monkeypatch.setattr(fuzzing, "TESTS", tmp_path)
    instruments, scale = cast("Instruments", None), Scale(fuzz_seconds=1)
    (idle,) = fuzzing.fuzzed(instruments, tmp_path, scale)
    skipped.write_text(f"{skipped.read_text()}def test_something(): ...\n", encoding="utf-8")
    (half,) = fuzzing.fuzzed(instruments, tmp_path, scale)

    assert ("test_skipped_fuzz.py: of 1 tests 1 were skipped, and none ran",) == idle.wrong
    assert half.good, half
    assert "1 of 2 tests skipped" in half.campaign
