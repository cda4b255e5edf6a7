"""
A real worker follows bank releases through the control topic: changes over, refuses, rolls back, while uploads flow.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.bank_control import BankControlV1
from tests.command_line import command_line
from tests.outcome_reader import OutcomeReader
from tests.platform_side import Published, inline, small_jpeg, upload_event
from tests.release_rig import (
    FromReleases,
    SteadyLoad,
    banks_by_partition,
    following_rig,
    publish_versions,
    require_each_once_in_order,
    told,
    until_judged_by,
)
from tests.servers import eventually
from tests.worker_rig import Instruments, WorkerProcess, WorkerRig
from worker.adapters.kafka_control import ControlReader, announce
from worker.bank.releases import Issuer, Releases
from worker.dev.servers import KafkaAt, RedisAt
from worker.errors import CannotStart

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(300)]

BY = Issuer("a test")
PARTITIONS = 2
PER_S = 50.0


@pytest.fixture
def releases(instruments: Instruments, tmp_path: Path) -> Releases:
    """
    Three releases of the small bank that differ in their version.
    """
    return publish_versions(instruments.bank, tmp_path, 3)


@pytest.fixture
def rig(
    kafka: KafkaAt, redis_server: RedisAt, instruments: Instruments, releases: Releases, tmp_path: Path
) -> Iterator[WorkerRig]:
    """
    A rig whose workers follow the topic, which exists, and take the uploads of a partition one after another.
    """
    followed = FromReleases.of(instruments, releases)
    with following_rig((kafka, redis_server), followed, tmp_path, partitions=PARTITIONS) as made:
        yield made.configure("fetch.threads=1")


def some_uploads(rig: WorkerRig, count: int, name: str) -> list[Published]:
    """
    So many uploads, of few pictures.
    """
    return rig.publish(
        [
            upload_event(f"{name}/{number}", inline(small_jpeg(number % 20)), key=f"user-{number}")
            for number in range(count)
        ]
    )


def banks_of(reader: OutcomeReader, published: list[Published]) -> set[str]:
    """
    The versions of the banks that these uploads were judged by.
    """
    assert reader.until_answered(published)
    return {reader.verdict_of(one)["versions"]["bank"]["version"] for one in published}


def told_times(worker: WorkerProcess, event: str, count: int) -> bool:
    """
    Whether it logs this for the so-manieth time, within the deadline.
    """
    return eventually(lambda: len(told(worker, event)) >= count, deadline_s=60)


def test_a_worker_follows_the_control_topic(rig: WorkerRig, releases: Releases) -> None:
    """
    It judges by what was announced last, and changes over without a restart.
    """
    kafka = rig.settings.kafka
    announce(kafka, releases.activate("1", BY))
    worker, reader = rig.start("one"), rig.reader()
    worker.until_started()
    before = banks_of(reader, some_uploads(rig, 20, "first"))
    announce(kafka, releases.activate("2", BY))
    assert told_times(worker, "bank.swapped", 1), worker.text()
    after = banks_of(reader, some_uploads(rig, 20, "second"))

    assert ({"1"}, {"2"}) == (before, after)
    assert worker.stop() == 0


def test_a_corrupt_release_and_a_rollback_while_uploads_flow(rig: WorkerRig, releases: Releases) -> None:
    """
    The corrupt one changes nothing and is told of once; the rollback changes the bank once in every partition's order.
    """
    kafka = rig.settings.kafka
    announce(kafka, releases.activate("1", BY))
    announce(kafka, releases.activate("2", BY))
    with (Path(releases.place.name) / "3" / "vectors.safetensors").open("r+b") as file:
        file.write(b"\xff\xff")
    worker, reader = rig.start("one"), rig.reader()
    worker.until_started()
    with SteadyLoad(rig, per_s=PER_S) as load:
        assert until_judged_by(reader, "2", partitions=PARTITIONS), worker.text()
        announce(kafka, releases.activate("3", BY))
        assert told_times(worker, "bank.refused", 1), worker.text()
        read = len(reader.outcomes)
        assert reader.until(lambda: len(reader.outcomes) > read + PER_S), worker.text()
        after_the_corrupt_one = banks_by_partition(reader.outcomes[:])

        # From the corrupt release back to the one that never ceased to judge, and from that to the one before it.
        announce(kafka, releases.rollback(BY))
        assert told_times(worker, "bank.as_announced", 1), worker.text()
        announce(kafka, releases.rollback(BY))
        assert until_judged_by(reader, "1", partitions=PARTITIONS), worker.text()
        published = load.ended()
    assert reader.until_answered(published), worker.text()
    assert worker.stop() == 0
    refused, swapped = worker.logged("bank.refused"), worker.logged("bank.swapped")
    metrics = worker.logged("worker.stopped")[0]["metrics"]

    assert after_the_corrupt_one == {number: ["2"] for number in range(PARTITIONS)}
    assert banks_by_partition(reader.outcomes) == {number: ["2", "1"] for number in range(PARTITIONS)}
    assert [("refused", "2", True)] == [(one["result"], one["kept"], "damaged" in one["why"]) for one in refused]
    assert [("2", "1")] == [(one["before"], one["release"]) for one in swapped]
    assert metrics['bank_swaps_total{result="refused"}'] == metrics['bank_swaps_total{result="swapped"}'] == 1
    require_each_once_in_order(published, reader.outcomes)


def test_what_the_topic_says(rig: WorkerRig, releases: Releases) -> None:
    """
    The newest record of a bank, of no other, nothing unreadable; a reader goes on where it was.
    """
    kafka = rig.settings.kafka
    reader = ControlReader(kafka, "small")
    before = reader.newest()
    first, second = releases.activate("1", BY), releases.activate("2", BY)
    announce(kafka, first)
    seen = reader.newest()
    announce(kafka, second)
    announce(kafka, BankControlV1.model_validate({**second.model_dump(), "bank": "another", "release": "9"}))
    late = ControlReader(kafka, "small")
    found = (reader.newest(), late.newest())
    reader.close()
    late.close()

    assert (before, seen, found) == (None, first, (second, second))


def test_what_was_not_announced_is_announced_later(
    rig: WorkerRig, releases: Releases, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    By the command, which changes nothing in the place.
    """
    held = releases.activate("2", BY)
    sets = [word for one in rig.sets for word in ("--set", one)]
    touchstone = command_line(monkeypatch, capsys, "bank", last=sets)
    ran = touchstone("announce", releases.place.name, "--json")
    reader = ControlReader(rig.settings.kafka, "small")
    seen = reader.newest()
    reader.close()

    assert 0 == ran.code, ran.err
    assert (held, held) == (seen, releases.active())


def test_a_missing_topic_is_told(rig: WorkerRig, releases: Releases) -> None:
    """
    Before anything is sent.
    """
    topics = rig.settings.kafka.topics.model_copy(update={"bank_control": f"{rig.name}-nothing"})

    with pytest.raises(CannotStart, match="has no topic"):
        announce(rig.settings.kafka.model_copy(update={"topics": topics}), releases.activate("1", BY))
