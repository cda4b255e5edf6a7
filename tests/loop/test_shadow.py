"""
The shadow: what the candidate does, fails to do or takes too long for is nothing to the live verdicts.
"""

import io
import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tests.loop_rig import Tuning, Worker
from tests.loop_seams import PATIENCE_S, ThreadKilled
from tests.loop_world import MISSING, World, each
from tests.shadow_rig import RUN_ID, ScriptedHang, ScriptedJudge, ShadowedWorker
from worker.flow.shadow import ShadowLimits
from worker.flow.travellers import Known

NAMES = [f"upload-{number}" for number in range(12)]
VOLATILE = {"timing"}


def raising(known: Sequence[Known]) -> None:
    """
    A candidate that cannot judge anything.
    """
    raise ValueError(f"no idea of {len(known)} uploads")


def logged(log: io.StringIO, event: str) -> list[dict[str, Any]]:
    """
    The lines of this event.
    """
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in lines if line["event"] == event]


def live_verdicts(world: World) -> list[dict[str, Any]]:
    """
    The live verdicts by content, without what differs from run to run.
    """
    found = [verdict.model_dump(mode="json", exclude=VOLATILE) for verdict in world.verdicts()]
    return sorted(found, key=lambda verdict: str(verdict["content_id"]))


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_every_sampled_upload_has_a_shadow_verdict_of_its_own(world: World, delivery: Any) -> None:  # noqa: ANN401 - the delivery's literal
    """
    At a share of 1 each judged upload has one live and one shadow verdict, with equal findings and different ids.
    """
    worker = ShadowedWorker(world, ScriptedJudge(), tuning=Tuning(delivery=delivery))
    world.publish(*NAMES)
    worker.finish()
    worker.until_told("published", len(NAMES))
    live = {one.content_id: one for one in world.verdicts()}
    shadowed = {one.content_id: one for one in worker.shadow_outbox.verdicts()}

    assert set(NAMES) == set(live) == set(shadowed)
    assert len(NAMES) == len(worker.shadow_outbox.messages)
    assert {("shadow", RUN_ID)} == {(one.mode, one.run_id) for one in shadowed.values()}
    assert {("live", None)} == {(one.mode, one.run_id) for one in live.values()}
    assert all(live[name].outcome == shadowed[name].outcome for name in NAMES)
    assert not {one.verdict_id for one in live.values()} & {one.verdict_id for one in shadowed.values()}


def test_the_live_topic_is_as_without_a_shadow() -> None:
    """
    With a shadow and without, the live verdicts are equal but for their times.
    """
    found = []
    for shadowed in (False, True):
        with World() as world:
            tuning = Tuning(cached=False, batch_size=1)
            worker = ShadowedWorker(world, ScriptedJudge(), tuning=tuning) if shadowed else Worker(world, tuning)
            world.publish(*NAMES)
            worker.finish()
            found.append(live_verdicts(world))

    assert len(NAMES) == len(found[0])
    assert found[0] == found[1]


def test_a_candidate_that_raises_is_counted_and_told_once(world: World, log: io.StringIO) -> None:
    """
    All live verdicts come, each upload counts as failed in the shadow, and the log has one line for all of them.
    """
    worker = ShadowedWorker(world, ScriptedJudge(raising))
    world.publish(*NAMES)
    worker.finish()
    worker.until_told("failed", len(NAMES))
    lines = logged(log, "shadow.lost")

    assert each(NAMES, "judged") == world.ends()
    assert len(NAMES) == worker.told("failed")
    assert 0 == worker.told("judged")
    assert [] == worker.shadow_outbox.messages
    assert 1 == len(lines)
    assert "no idea of" in lines[0]["reason"]


def test_one_upload_that_the_candidate_cannot_judge_fails_alone(world: World) -> None:
    """
    A fault over one upload of a batch costs that one its shadow verdict, and no other.
    """

    def unlucky(known: Sequence[Known]) -> None:
        if any(one.passenger.upload.data.content_id == NAMES[3] for one in known):
            raise ValueError(NAMES[3])

    worker = ShadowedWorker(world, ScriptedJudge(unlucky))
    world.publish(*NAMES)
    worker.finish()
    worker.until_told("published", len(NAMES) - 1)
    worker.until_told("failed", 1)
    shadowed = [one.content_id for one in worker.shadow_outbox.verdicts()]

    assert sorted(set(NAMES) - {NAMES[3]}) == sorted(shadowed)
    assert each(NAMES, "judged") == world.ends()


def test_a_candidate_that_hangs_delays_nothing(world: World, log: io.StringIO) -> None:
    """
    While it hangs all live verdicts come and are committed; the drain ends, and all that was offered counts as dropped.
    """
    hang = ScriptedHang()
    worker = ShadowedWorker(world, ScriptedJudge(hang))
    world.publish(*NAMES)
    report = worker.finish()
    hang.arrived.wait(PATIENCE_S)
    began_s = time.monotonic()
    worker.shadow.close(0.05)
    took_s = time.monotonic() - began_s
    dropped = worker.told("dropped")
    hang.release()

    assert len(NAMES) == report.released
    assert 0 == report.abandoned
    assert each(NAMES, "judged") == world.ends()
    assert took_s < PATIENCE_S / 2
    assert len(NAMES) == dropped
    assert worker.shadow_outbox.closed
    assert [["shadow"]] == [line["threads"] for line in logged(log, "threads.left_behind")]


def test_what_comes_back_after_the_end_is_not_published(world: World) -> None:
    """
    A candidate that wakes up when the worker has left publishes nothing and counts nothing twice.
    """
    hang = ScriptedHang()
    worker = ShadowedWorker(world, ScriptedJudge(hang))
    world.publish(*NAMES)
    worker.finish()
    worker.shadow.close(0.05)
    hang.release()
    left_over = worker.shadow._crew.join(PATIENCE_S)

    assert [] == left_over
    assert [] == worker.shadow_outbox.messages
    assert (0, len(NAMES)) == (worker.told("judged"), worker.told("dropped"))


def test_a_dead_shadow_thread_does_not_end_the_worker(world: World, log: io.StringIO) -> None:
    """
    Not even what no handler holds back gets from the candidate into the live worker; the log names the thread.
    """

    def killed(known: Sequence[Known]) -> None:
        raise ThreadKilled(str(len(known)))

    worker = ShadowedWorker(world, ScriptedJudge(killed))
    world.publish(*NAMES)
    worker.finish()
    worker.shadow.close(1.0)

    assert each(NAMES, "judged") == world.ends()
    assert len(NAMES) == worker.told("dropped")
    assert ["shadow"] == [line["thread"] for line in logged(log, "thread.died")]


def test_a_full_queue_drops_and_counts(world: World) -> None:
    """
    With room for three, a candidate that hangs has at most what it took and three more; the rest is dropped at once.
    """
    hang = ScriptedHang()
    worker = ShadowedWorker(world, ScriptedJudge(hang), limits=ShadowLimits(1.0, 3))
    world.publish(NAMES[0])
    worker.step_until(hang.arrived.is_set)
    world.publish(*NAMES[1:])
    worker.finish()
    dropped = worker.told("dropped")
    hang.release()
    worker.until_told("published", 4)

    assert len(NAMES) - 4 == dropped
    assert 4 == worker.told("judged")
    assert each(NAMES, "judged") == world.ends()


@pytest.mark.parametrize("how", ["refuses", "raises", "is silent"])
def test_a_failing_shadow_topic_is_counted(world: World, how: str) -> None:
    """
    Verdicts that the shadow topic refuses, whose publishing raises or that are never answered count as unacknowledged.
    """
    worker = ShadowedWorker(world, ScriptedJudge())
    worker.shadow_outbox.refusal = "it is gone" if how == "refuses" else None
    worker.shadow_outbox.fault = RuntimeError("broken") if how == "raises" else None
    worker.shadow_outbox.hold = how == "is silent"
    world.publish(*NAMES)
    worker.finish()
    worker.until_told("judged", len(NAMES))
    worker.shadow.close(5.0)

    assert len(NAMES) == worker.told("unacknowledged")
    assert 0 == worker.told("published")
    assert each(NAMES, "judged") == world.ends()


def test_a_topic_that_blocks_is_left_behind_and_counted(world: World) -> None:
    """
    A thread that hangs on its way to the broker does not keep the worker, and what it had in hand is accounted for.
    """
    worker = ShadowedWorker(world, ScriptedJudge())
    worker.shadow_outbox.gate = threading.Event()
    world.publish(*NAMES)
    worker.finish()
    worker.until_told("judged", 1)
    worker.shadow.close(0.05)
    judged, dropped, lost = (worker.told(result) for result in ("judged", "dropped", "unacknowledged"))
    worker.shadow_outbox.gate.set()
    worker.shadow._crew.join(PATIENCE_S)

    assert len(NAMES) == judged + dropped
    assert judged == lost == worker.told("unacknowledged")
    assert 0 == worker.told("published")
    assert each(NAMES, "judged") == world.ends()


def test_an_answer_after_the_end_counts_no_more(world: World) -> None:
    """
    What counted as unacknowledged at the end stays so, though the broker answers later.
    """
    worker = ShadowedWorker(world, ScriptedJudge())
    worker.shadow_outbox.hold = True
    world.publish(*NAMES)
    worker.finish()
    worker.until_told("judged", len(NAMES))
    worker.shadow.close(5.0)
    for done in worker.shadow_outbox.held:
        done(None)

    assert len(NAMES) == len(worker.shadow_outbox.held)
    assert (0, len(NAMES)) == (worker.told("published"), worker.told("unacknowledged"))


def test_the_sample_is_the_same_in_every_worker() -> None:
    """
    Two workers of the same uploads, in another order, choose the same ones, and about as many as the share says.
    """
    found = []
    for order in (1, -1):
        with World() as world:
            worker = ShadowedWorker(world, ScriptedJudge(), limits=ShadowLimits(0.5, 1000))
            world.publish(*[f"upload-{number}" for number in range(60)][::order])
            worker.finish()
            worker.shadow.close(20.0)
            found.append({one.content_id for one in worker.shadow_outbox.verdicts()})

    assert found[0] == found[1]
    assert 15 <= len(found[0]) <= 45


def test_failures_and_dead_letters_are_the_live_judges_alone(world: World) -> None:
    """
    The candidate hears nothing of uploads that could not be fetched and of records that are no uploads.
    """
    candidate = ScriptedJudge()
    worker = ShadowedWorker(world, candidate)
    world.publish("gone", picture=MISSING)
    world.publish_raw("no json", b"no json")
    world.publish(NAMES[0])
    worker.finish()
    worker.shadow.close(20.0)

    assert [NAMES[0]] == candidate.asked
    assert {
        "gone": ["FETCH_NOT_FOUND"],
        "no json": ["dead letter: EVENT_INVALID"],
        NAMES[0]: ["judged"],
    } == world.ends()


def test_what_waits_holds_no_bytes(world: World) -> None:
    """
    An upload that waits for the candidate has let go of its event's bytes, which may hold a whole image.
    """
    candidate = ScriptedJudge()
    worker = ShadowedWorker(world, candidate)
    world.publish(NAMES[0])
    worker.finish()
    worker.shadow.close(20.0)
    (known,) = candidate.seen

    assert known.passenger.upload.raw.value is None
    assert known.passenger.slot.event.value is None


def test_shadow_messages_carry_their_sampling_rate(world: World) -> None:
    """
    CloudEvents' sampledrate stands in the headers of a shadow verdict, and in those of a live one it does not.
    """
    worker = ShadowedWorker(world, ScriptedJudge())
    world.publish(NAMES[0])
    worker.finish()
    worker.shadow.close(20.0)
    (message,) = worker.shadow_outbox.messages

    assert b"3" == dict(message.headers)["ce_sampledrate"]
    assert ["ce_sampledrate" in dict(record.headers) for record in world.kafka.records("verdicts")] == [False]
