"""
A real worker follows bank releases through the control topic: changes over, refuses, rolls back, while uploads flow.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from schemas.bank_control import BankControlV1
from tests.outcome_reader import OutcomeReader
from tests.platform_side import Published, inline, small_jpeg, upload_event
from tests.servers import eventually
from tests.worker_rig import Instruments, WorkerProcess, WorkerRig
from worker.adapters.kafka_control import ControlReader, announce
from worker.adapters.kafka_topics import topics_of
from worker.adapters.topic_plan import TopicsFile, plan_topics, wanted_topics
from worker.bank.files import read_manifest, write_manifest
from worker.bank.release_place import DirectoryPlace
from worker.bank.releases import Issuer, Releases
from worker.dev.servers import KafkaAt, RedisAt
from worker.errors import CannotStart

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(300)]

BY = Issuer("a test")
STEADY = 240


@dataclass(frozen=True, slots=True)
class FromReleases(Instruments):
    """
    The encoder, and a place of releases instead of a bank.
    """

    place: Path

    def sets(self) -> list[str]:
        """
        The settings that name them.
        """
        others = [one for one in super(FromReleases, self).sets() if not one.startswith("bank.path=")]
        return [
            *others,
            f"bank.releases={json.dumps(str(self.place))}",
            "bank.activated_by=topic",
            "bank.look_every_s=0.2",
        ]


@pytest.fixture
def releases(instruments: Instruments, tmp_path: Path) -> Releases:
    """
    Three releases of the small bank that differ in their version.
    """
    found = Releases(DirectoryPlace(tmp_path / "place"))
    for version in ("1", "2", "3"):
        bank = tmp_path / f"bank-{version}"
        shutil.copytree(instruments.bank, bank)
        write_manifest(bank, read_manifest(bank).model_copy(update={"version": version}))
        found.publish(bank)
    return found


@pytest.fixture
def rig(
    kafka: KafkaAt, redis_server: RedisAt, instruments: Instruments, releases: Releases, tmp_path: Path
) -> Iterator[WorkerRig]:
    """
    A rig whose workers follow the topic, which exists.
    """
    followed = FromReleases(
        instruments.model, instruments.checkpoint_sha256, instruments.bank, Path(releases.place.name)
    )
    with WorkerRig(kafka.bootstrap_servers, redis_server.url, followed, tmp_path) as made:
        settings = made.configure(f"kafka.topics.bank_control={made.name}-control").create_topics(2).settings
        with topics_of(settings.kafka) as topics:
            wanted = wanted_topics(settings.kafka, TopicsFile(), brokers=topics.brokers(), roles=("bank_control",))
            topics.apply(plan_topics(wanted, {}))
        yield made
        with topics_of(settings.kafka) as topics:
            topics.delete([settings.kafka.topics.bank_control])


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


def told(worker: WorkerProcess, event: str, count: int) -> bool:
    """
    Whether it logs this for the so-manieth time, within the deadline.
    """
    return eventually(lambda: len(worker.logged(event)) >= count, deadline_s=60)


def test_a_worker_follows_the_control_topic(rig: WorkerRig, releases: Releases) -> None:
    """
    Changes over, keeps the old bank where a corrupt one is announced, and rolls back while uploads flow.
    """
    kafka = rig.settings.kafka
    announce(kafka, releases.activate("1", BY))
    worker, reader = rig.start("one"), rig.reader()
    worker.until_started()
    assert banks_of(reader, some_uploads(rig, 20, "first")) == {"1"}, worker.text()

    announce(kafka, releases.activate("2", BY))
    assert told(worker, "bank.swapped", 1), worker.text()
    assert banks_of(reader, some_uploads(rig, 20, "second")) == {"2"}

    with (Path(releases.place.name) / "3" / "vectors.safetensors").open("r+b") as file:
        file.write(b"\xff\xff")
    announce(kafka, releases.activate("3", BY))
    assert told(worker, "bank.refused", 1), worker.text()
    assert "damaged" in worker.logged("bank.refused")[0]["why"]
    assert banks_of(reader, some_uploads(rig, 20, "third")) == {"2"}

    announce(kafka, releases.rollback(BY))
    flowing = some_uploads(rig, STEADY, "flowing")
    announce(kafka, releases.rollback(BY))
    flowing += some_uploads(rig, STEADY, "flowing-on")
    assert told(worker, "bank.swapped", 2), worker.text()
    assert banks_of(reader, flowing) <= {"1", "2"}
    assert banks_of(reader, some_uploads(rig, 20, "last")) == {"1"}
    assert len(reader.verdicts()) == 80 + 2 * STEADY
    assert worker.stop() == 0
    assert worker.logged("worker.stopped")[0]["metrics"]['bank_swaps_total{result="refused"}'] == 1


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


def test_a_missing_topic_is_told(rig: WorkerRig, releases: Releases) -> None:
    """
    Before anything is sent.
    """
    topics = rig.settings.kafka.topics.model_copy(update={"bank_control": f"{rig.name}-nothing"})

    with pytest.raises(CannotStart, match="has no topic"):
        announce(rig.settings.kafka.model_copy(update={"topics": topics}), releases.activate("1", BY))
