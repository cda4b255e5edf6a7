"""
``touchstone diff`` over the topics of a real Kafka.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.command_line import Touchstone, command_line
from tests.diff_worlds import Said, line, verdict, write_lines
from worker.adapters.kafka_client import admin_client
from worker.adapters.kafka_run import KafkaRun
from worker.adapters.kafka_run_state import run_group
from worker.adapters.kafka_topics import topics_of
from worker.adapters.kafka_verdicts import read_verdicts
from worker.adapters.system_clock import SystemClock
from worker.adapters.topic_plan import ALWAYS, Role, TopicsFile, plan_topics, wanted_topics
from worker.dev.servers import KafkaAt
from worker.domain import Partition
from worker.errors import EXIT_CANNOT_START, EXIT_FOUND, EXIT_OK, CannotStart
from worker.flow.replay_run import RunPlan, RunTotals, Stretch
from worker.settings.tree import KafkaSettings
from worker.telemetry.metrics import InMemoryRecorder

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

PARTITIONS = 3
LATE = datetime.now(UTC).replace(microsecond=0)
EARLY = LATE - timedelta(minutes=30)
"""Brokers take neither what is too old nor what is from the future."""


@pytest.fixture
def settings(kafka: KafkaAt, topic_name: str) -> Iterator[KafkaSettings]:
    """
    Settings whose topics nobody else has; they are deleted afterwards.
    """
    roles: tuple[Role, ...] = (*ALWAYS, "shadow_verdicts")
    names = {role: f"{topic_name}-{role}" for role in roles}
    settings = KafkaSettings.model_validate({"bootstrap_servers": kafka.bootstrap_servers, "topics": names})
    with topics_of(settings) as topics:
        wanted = wanted_topics(settings, TopicsFile(), brokers=topics.brokers(), roles=roles, partitions=PARTITIONS)
        topics.apply(plan_topics(wanted, {}))
    yield settings
    with topics_of(settings) as topics:
        topics.delete(list(names.values()))


@pytest.fixture
def touchstone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, settings: KafkaSettings
) -> Touchstone:
    """
    Runs ``touchstone ...`` on these topics.
    """
    monkeypatch.chdir(tmp_path)
    run = command_line(monkeypatch, capsys)
    topics = settings.topics.model_dump(include={*ALWAYS, "shadow_verdicts"})
    sets = [f"kafka.bootstrap_servers={json.dumps(settings.bootstrap_servers)}"]
    sets += [f"kafka.topics.{role}={name}" for role, name in topics.items()]
    options = [part for one in sets for part in ("--set", one)]
    return lambda *arguments: run(*arguments, *options)


def produce(
    settings: KafkaSettings, topic: str, all_said: Iterable[Said], *, end: str = "commit", at: datetime = LATE
) -> None:
    """
    Put verdicts into a topic, in one transaction of librdkafka's, over all partitions.
    """
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers, "transactional.id": f"{topic}-{end}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number, said in enumerate(all_said):
        producer.produce(
            topic, line(said).rstrip(), partition=number % PARTITIONS, timestamp=round(at.timestamp() * 1000)
        )
    producer.flush(30)
    finish: Callable[[float], None] = {"commit": producer.commit_transaction, "abort": producer.abort_transaction}[end]
    finish(30)


def test_a_topic_is_read_to_its_end_and_without_what_was_aborted(settings: KafkaSettings) -> None:
    """
    The marks of transactions and aborted records at the end of partitions hold nothing up; progress ends at the end.
    """
    topic = settings.topics.verdicts
    wanted = [Said(str(number)) for number in range(2_500)]
    produce(settings, topic, wanted)
    produce(settings, topic, [Said(f"aborted-{number}") for number in range(40)], end="abort")
    told: list[tuple[int, int]] = []
    found = list(read_verdicts(settings, topic, progress=lambda *so_far: told.append(so_far)))

    assert sorted(said.event for said in wanted) == sorted(one.input.event_id for one in found)
    assert {verdict(said).verdict_id for said in wanted} == {one.verdict_id for one in found}
    # Beside 2,540 records there are two marks in each partition.
    assert (0, 2_546) == told[0]
    assert (2_546, 2_546) == told[-1]
    assert told == sorted(told)


def test_the_end_is_fixed_when_reading_begins(settings: KafkaSettings) -> None:
    """
    What is written while a topic is read is not read.
    """
    topic = settings.topics.verdicts
    produce(settings, topic, [Said(str(number)) for number in range(30)])
    reading = read_verdicts(settings, topic)
    first = next(reading)
    produce(settings, topic, [Said("later")])

    assert 29 == len(list(reading))
    assert "later" != first.input.event_id


def test_only_what_was_written_since(settings: KafkaSettings) -> None:
    """
    By the records' own time; partitions without a later record give nothing.
    """
    topic = settings.topics.verdicts
    produce(settings, topic, [Said(f"early-{number}") for number in range(9)], at=EARLY)
    produce(settings, topic, [Said("late")], at=LATE)
    found = read_verdicts(settings, topic, since=LATE)

    assert ["late"] == [one.input.event_id for one in found]
    assert 10 == len(list(read_verdicts(settings, topic, since=EARLY)))


def test_an_empty_and_a_missing_topic(settings: KafkaSettings) -> None:
    """
    The one gives nothing at once; the other is refused by its name.
    """
    assert [] == list(read_verdicts(settings, settings.topics.verdicts))
    with pytest.raises(CannotStart, match="absent"):
        list(read_verdicts(settings, "absent"))


def test_a_record_that_is_no_verdict_is_named(settings: KafkaSettings) -> None:
    """
    By its place; a tombstone is passed over.
    """
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
    for value in (None, b"no verdict"):
        producer.produce(settings.topics.verdicts, value, key=b"k", partition=1)
    producer.flush(30)

    with pytest.raises(CannotStart, match="partition 1, offset 1: found 10 bytes that begin with 'no verdict'"):
        list(read_verdicts(settings, settings.topics.verdicts))


@contextmanager
def a_run(settings: KafkaSettings, run_id: str, end: int) -> Iterator[KafkaRun]:
    """
    A replay of one partition's uploads from 10 on, that has begun; what it writes is produced by the test.
    """
    plan = RunPlan(run_id, settings.topics.uploads, "topic:out", "beginning", "end", {}, {0: Stretch(10, end)})
    with closing(KafkaRun(settings, run_id, InMemoryRecorder(), SystemClock())) as run:
        run.begin(plan)
        yield run


def test_no_gate_passes_on_a_replay_in_a_topic_before_its_end(settings: KafkaSettings, touchstone: Touchstone) -> None:
    """
    Whether it is named by its run or by its topic, and again when the brokers have forgotten what they knew of it.
    """
    topic = settings.topics.verdicts
    live = [Said(str(number), "real", offset=number) for number in range(20)]
    produce(settings, topic, [*live, *(replace(said, mode="replay", run_id="halt") for said in live[10:])])
    sides = [f"topic:{topic}#mode=live", "--within-b", "--require-equal", "--json"]
    with a_run(settings, "halt", 25) as run:
        run.write([], {Partition(settings.topics.uploads, 0): 20}, RunTotals(replayed=10))
        named, all_of_topic = touchstone("diff", "run:halt", *sides), touchstone("diff", f"topic:{topic}", *sides)
        allowed = touchstone("diff", "run:halt", *sides, "--allow-unfinished")
        run.finish(RunTotals(replayed=10))
    whole = touchstone("diff", sides[0], "run:halt", *sides[1:])
    elsewhere = touchstone("diff", sides[0], "run:halt", *sides[1:], "--set", "kafka.group_id=another")
    with admin_client(settings) as admin:
        group = run_group(settings, "halt")
        admin.delete_groups([group, f"{group}.plan"])
    forgotten = touchstone("diff", sides[0], "run:halt", *sides[1:])

    for ran, side in ((named, "run:halt"), (all_of_topic, f"topic:{topic}")):
        assert (EXIT_FOUND, False) == (ran.code, ran.json["passed"])
        assert f"run halt of A ({side}) has not finished, 5 positions are left" in ran.err
        assert "--run-id halt" in ran.err
    assert {"finished"} == {gate["name"] for gate in named.json["gates"] if not gate["passed"]} - {"require-equal"}
    assert "gate finished" not in allowed.err
    assert (EXIT_OK, "") == (whole.code, whole.err)
    for ran in (elsewhere, forgotten):
        assert EXIT_FOUND == ran.code
        assert "nobody can tell whether run halt of B (run:halt) has finished" in ran.err
        assert "offsets.retention.minutes" in ran.err


def test_a_replay_is_found_by_its_run_and_gated(settings: KafkaSettings, touchstone: Touchstone) -> None:
    """
    Live and replayed verdicts in one topic: equal ones pass, one flip is told; a file serves as a side, too.
    """
    topic = settings.topics.verdicts
    live = [Said(str(number), "real", score=0.1, offset=number) for number in range(50)]
    same = [
        Said(str(number), "real", score=0.1, offset=number, mode="replay", run_id="same") for number in range(10, 50)
    ]
    flipped = [*same[1:], Said("10", "ai_generated", offset=10, mode="replay", run_id="other")]
    produce(settings, topic, [*live, *same])
    write_lines(Path("other.jsonl"), *flipped)
    with a_run(settings, "same", 50) as run:
        run.finish(RunTotals(replayed=40))

    assert EXIT_OK == touchstone("diff", f"topic:{topic}#mode=live", "run:same", "--within-b", "--require-equal").code
    assert EXIT_FOUND == touchstone("diff", f"topic:{topic}#mode=live", "run:same", "--max-missing", "9").code
    ran = touchstone("diff", f"topic:{topic}#mode=live", "other.jsonl", "--max-flips", "0", "--json")
    assert EXIT_FOUND == ran.code
    assert (40, 1, 10, 0) == tuple(ran.json[name] for name in ("compared", "flips", "only_in_a", "only_in_b"))
    assert ["10"] == [one["event_id"] for one in ran.json["listed"]["flipped"]]


def test_a_shadow_is_found_by_its_run(settings: KafkaSettings, touchstone: Touchstone) -> None:
    """
    The shadow topic is looked into without being named; a run that is not there is told with what is.
    """
    produce(settings, settings.topics.verdicts, [Said("1", "real"), Said("2", "real")])
    shadow = Said("2", "uncertain", mode="shadow", run_id="candidate")
    produce(settings, settings.topics.shadow_verdicts, [shadow])
    live = f"topic:{settings.topics.verdicts}"
    ran = touchstone("diff", live, "run:candidate", "--json")
    absent = touchstone("diff", live, "run:nobody")

    assert (EXIT_OK, {"real -> uncertain": 1}) == (ran.code, ran.json["transitions"])
    assert EXIT_CANNOT_START == absent.code
    assert "1 in mode shadow of run candidate" in absent.err
