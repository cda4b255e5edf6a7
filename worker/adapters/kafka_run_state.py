"""
What the brokers keep of a replay run whose verdicts go to a topic, and how it reads as offsets of two consumer groups.

The run's own group has its progress: per partition the next offset to read, with the totals as metadata. The second
(the same name and ``.plan``) has the plan: per partition its start as offset, and its end with all else as metadata.
Who writes them is ``kafka_run.py``.
"""

import json
import time
from collections.abc import Mapping
from typing import Any, Final

import kafka.errors as kafka_errors
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata
from pydantic import ValidationError

from worker.adapters.kafka_client import START_TIMEOUT_S, admin_client, starting
from worker.errors import CannotStart
from worker.flow.replay_run import PLANS, TOTALS, RunPlan, RunState, RunTotals, Stretch
from worker.settings.tree import KafkaSettings

PLAN_SUFFIX: Final = ".plan"
ASK_AGAIN_S: Final = 0.1

Kept = Mapping[TopicPartition, Any]
"""What a group has committed: kafka-python's offsets with metadata."""

_ANEW: Final = "Replay to another --out under another --run-id"


def run_group(settings: KafkaSettings, run_id: str) -> str:
    """
    The consumer group under which a run's progress is committed, which is its transactional id as well.
    """
    return f"{settings.group_id}.replay.{run_id}"


def find_run(settings: KafkaSettings, run_id: str) -> RunState | None:
    """
    What the brokers keep of a run; None where they know nothing of it.

    Raises ``CannotStart`` when they do not answer, have dropped a part of it, or keep something else there.
    """
    group = run_group(settings, run_id)
    planned, reached = kept_of(settings, group)
    plan = _plan_of(group, planned)
    if plan is None and reached:
        raise CannotStart(
            f"Group {group} has come some way, but its plan ({group}{PLAN_SUFFIX}) is gone: brokers keep it for "
            f"offsets.retention.minutes. {_ANEW}"
        )
    return None if plan is None else state_of(group, plan, reached)


def kept_of(settings: KafkaSettings, group: str) -> tuple[Kept, Kept]:
    """
    The offsets of a run's plan, and those of its progress. Raises ``CannotStart`` when the brokers do not answer.
    """
    # A cluster's first group waits for the topic of offsets to be made; kafka-python does not wait for that.
    give_up_s = time.monotonic() + START_TIMEOUT_S
    with starting(settings, START_TIMEOUT_S), admin_client(settings) as admin:
        while True:
            try:
                return _committed(admin, group + PLAN_SUFFIX), _committed(admin, group)
            except kafka_errors.KafkaError as error:
                if not error.retriable or time.monotonic() > give_up_s:
                    raise
                time.sleep(ASK_AGAIN_S)


def _committed(admin: Any, group: str) -> Kept:  # noqa: ANN401 - kafka-python is untyped
    found: Kept = admin.list_group_offsets(group).get(group, {})
    return {at: stored for at, stored in found.items() if stored.offset >= 0}


def _plan_of(group: str, kept: Kept) -> RunPlan | None:
    if not kept:
        return None
    stretches: dict[int, Stretch] = {}
    documents = []
    try:
        for at, stored in kept.items():
            document = json.loads(stored.metadata)
            stretches[at.partition] = Stretch(stored.offset, int(document.pop("end")))
            documents.append(document)
        return PLANS.validate_python(documents[0] | {"stretches": stretches})
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise CannotStart(
            f"Group {group}{PLAN_SUFFIX} holds no plan of a replay ({type(error).__name__}): another release or "
            "another program committed there. Take another --run-id"
        ) from error


def state_of(group: str, plan: RunPlan, kept: Kept) -> RunState:
    """
    How far a run has come. Raises ``CannotStart`` where that cannot be told of every partition.
    """
    reached = {at.partition: stored for at, stored in kept.items() if at.topic == plan.topic}
    # Each run begins with a progress of every partition, so what is not there was dropped.
    if missing := sorted(plan.stretches.keys() - reached.keys()):
        raise CannotStart(
            f"Group {group} no longer says how far partition {', '.join(map(str, missing))} of {plan.topic} has come: "
            f"brokers keep that for offsets.retention.minutes. {_ANEW}"
        )
    try:
        found = [TOTALS.validate_json(stored.metadata) for stored in reached.values()]
    except ValidationError as error:
        raise CannotStart(
            f"Group {group} holds no progress of a replay: another release or another program committed there. "
            "Take another --run-id"
        ) from error
    positions = {number: stored.offset for number, stored in reached.items()}
    # Totals only rise, and each transaction writes them to the partitions that it moves.
    totals = max(found, key=_size, default=RunTotals())
    ended = all(positions[number] == stretch.end for number, stretch in plan.stretches.items())
    return RunState(plan, positions, totals, finished=ended)


def _size(totals: RunTotals) -> int:
    return totals.replayed + totals.dead_letters


def plan_offsets(plan: RunPlan) -> dict[TopicPartition, OffsetAndMetadata]:
    """
    A plan as the offsets of its group.
    """
    common = PLANS.dump_python(plan, mode="json", exclude={"stretches"})
    return {
        TopicPartition(plan.topic, number): OffsetAndMetadata(
            stretch.start, json.dumps(common | {"end": stretch.end}), -1
        )
        for number, stretch in plan.stretches.items()
    }


def progress_offsets(topic: str, positions: Mapping[int, int], totals: RunTotals) -> dict[TopicPartition, Any]:
    """
    Progress as the offsets of the run's own group.
    """
    told = TOTALS.dump_json(totals).decode()
    return {TopicPartition(topic, number): OffsetAndMetadata(at, told, -1) for number, at in positions.items()}
