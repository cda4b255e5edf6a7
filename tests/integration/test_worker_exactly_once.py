"""
Exactly once, whatever happens to the workers: killed, joined, left, frozen past their session.
"""

import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.outcome_reader import CommitWatch, OutcomeReader
from tests.platform_side import DEADLINE_S, Event, Position, Published, inline, small_jpeg, upload_event
from tests.servers import eventually
from tests.worker_rig import WorkerProcess, WorkerRig

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(400)]

PARTITIONS = 6
WAVE = 400
KEYS = 100
PICTURES = 250
UNDER_WAY = 100
"""So many outcomes of a wave are seen before something happens to a worker."""


def wave(number: int) -> list[Event]:
    """
    Uploads of which a part shares its pictures with others, in this wave and in all others.
    """
    first = number * WAVE
    return [
        upload_event(f"post/{one}", inline(small_jpeg(one % PICTURES)), key=f"user-{one % KEYS}")
        for one in range(first, first + WAVE)
    ]


def publish_and_watch(rig: WorkerRig, reader: OutcomeReader, number: int) -> list[Published]:
    """
    Publish a wave, and return when a part of it has outcomes, committed or not.
    """
    before = len(reader.outcomes)
    published = rig.publish(wave(number))
    assert reader.until(lambda: len(reader.outcomes) >= before + UNDER_WAY), rig.text()
    return published


def started(rig: WorkerRig, *names: str) -> list[WorkerProcess]:
    """
    Workers that have loaded; they load side by side.
    """
    workers = [rig.start(name) for name in names]
    for worker in workers:
        worker.until_started()
    return workers


def test_a_read_committed_reader_sees_each_verdict_once(new_rig: Callable[..., WorkerRig]) -> None:
    """
    One worker is killed and comes back, a third joins and leaves, another is frozen until the group has expelled it.

    A read_committed reader sees one verdict per upload, none twice, none missing, those of each key in the order of its
    uploads; commits are never ahead of outcomes; and whoever lived leaves with exit code 0.
    """
    rig = new_rig().configure("kafka.delivery=exactly_once").create_topics(PARTITIONS)
    topics = rig.settings.kafka.topics
    attempts = rig.reader()
    one, two = started(rig, "one", "two")
    assert eventually(lambda: rig.cluster.shares() == [3, 3], deadline_s=DEADLINE_S)

    with CommitWatch(rig.cluster, attempts, topics.verdicts) as watch:
        published = publish_and_watch(rig, attempts, 0)
        one.process.kill()
        one_again, three = started(rig, "one", "three")
        assert eventually(lambda: rig.cluster.shares() == [2, 2, 2], deadline_s=DEADLINE_S)

        published += publish_and_watch(rig, attempts, 1)
        three.signal(signal.SIGTERM)
        assert three.wait() == 0
        assert eventually(lambda: rig.cluster.shares() == [3, 3], deadline_s=DEADLINE_S)

        published += publish_and_watch(rig, attempts, 2)
        two.signal(signal.SIGSTOP)
        assert eventually(lambda: rig.cluster.shares() == [6], deadline_s=DEADLINE_S)
        two.signal(signal.SIGCONT)
        assert eventually(lambda: rig.cluster.shares() == [3, 3], deadline_s=DEADLINE_S)

        published += publish_and_watch(rig, attempts, 3)
        reader = rig.reader(isolation_level="read_committed")
        answered = reader.until_answered(published)
        codes = [worker.stop() for worker in (one_again, two)]

    assert answered, rig.text()
    assert codes == [0, 0]
    assert one.wait() == -9
    assert three.released()
    assert watch.passed == []
    assert len(watch.seen) > PARTITIONS
    assert reader.until_read(topics.verdicts, rig.cluster.ends(topics.verdicts))
    assert Counter(one.position for one in published) == Counter(outcome.answers for outcome in reader.outcomes)
    assert len({verdict["verdict_id"] for verdict in reader.verdicts()}) == len(published)
    require_order(reader.verdicts(), published)


def require_order(verdicts: Sequence[dict[str, Any]], published: Sequence[Published]) -> None:
    """
    The verdicts of each key answer exactly its uploads, in their order.
    """
    key_of = {one.position: one.event.key for one in published}
    sent: dict[bytes | None, list[Position]] = defaultdict(list)
    answered: dict[bytes | None, list[Position]] = defaultdict(list)
    for one in published:
        sent[one.event.key].append(one.position)
    for verdict in verdicts:
        position = (verdict["input"]["partition"], verdict["input"]["offset"])
        answered[key_of[position]].append(position)

    assert sent == answered
