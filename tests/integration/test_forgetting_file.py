"""
A whole worker that keeps embeddings in a file, and forgets from it while other processes open that file and close it.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.platform_side import DEADLINE_S, Cluster, inline, small_jpeg, upload_event
from tests.replay_rig import replay_process
from tests.servers import eventually
from tests.worker_rig import WorkerProcess, WorkerRig
from worker.adapters.kafka_topics import topics_of
from worker.adapters.topic_plan import TopicsFile, plan_topics, wanted_topics

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def rig(new_rig: Callable[..., WorkerRig]) -> Iterator[WorkerRig]:
    """
    Its workers keep embeddings in a file, and hear of deletions.
    """
    rig = new_rig().create_topics(1)
    rig.configure(
        "deletions.enabled=true",
        f"kafka.topics.deletions={rig.name}-deletions",
        "embeddings.keep=file",
        f"embeddings.path={json.dumps(str(rig.folder / 'kept.sqlite'))}",
    )
    settings = rig.settings.kafka
    with topics_of(settings) as topics:
        wanted = wanted_topics(settings, TopicsFile(), brokers=topics.brokers(), roles=("deletions",))
        topics.apply(plan_topics(wanted, {}))
    yield rig
    with topics_of(settings) as topics:
        topics.delete([settings.topics.deletions])


def kept_in(path: Path) -> set[str]:
    """
    The hashes in the file; to look, this process opens it and closes it again, as another command would.
    """
    with closing(sqlite3.connect(path)) as connection:
        return {name.hex() for (name,) in connection.execute("SELECT hash FROM sightings")}


def unlinked(worker: WorkerProcess, name: str) -> list[str]:
    """
    What the worker has open under this name that no longer has a place in any folder.
    """
    folder = Path(f"/proc/{worker.process.pid}/fd")
    links = [str(one.readlink()) for one in folder.iterdir() if one.is_symlink()]
    return [link for link in links if name in link and link.endswith("(deleted)")]


def forget(rig: WorkerRig, *words: str) -> WorkerProcess:
    """
    ``touchstone forget``, as a process of its own, just started.
    """
    sets = [part for one in rig.sets for part in ("--set", one)]
    return WorkerProcess(["forget", *words, *sets], rig.folder)


def test_others_come_and_go_while_a_worker_forgets(rig: WorkerRig) -> None:
    """
    Commands and a replay share the file with a worker that follows deletions; it keeps and forgets to the end.

    The file's log is never taken from under the worker, nothing that it was to keep is missing, and what was deleted is
    not there.
    """
    path = rig.folder / "kept.sqlite"
    pictures = [small_jpeg(seed) for seed in range(12)]
    hashes = [hashlib.sha256(data).hexdigest() for data in pictures]
    with (
        rig.reader() as reader,
        closing(Cluster(rig.bootstrap_servers, f"{rig.settings.kafka.group_id}.deletions.one")) as deletions,
    ):
        worker = rig.start("one")
        worker.until_started()

        def upload(numbers: range) -> None:
            events = [upload_event(f"post-{number}", inline(pictures[number])) for number in numbers]
            assert reader.until_answered(rig.publish(events)), rig.text()
            expected = {hashes[number] for number in numbers}
            assert eventually(lambda: expected <= kept_in(path), deadline_s=DEADLINE_S), rig.text()

        def delete(number: int, *, committed: int) -> None:
            with closing(forget(rig, f"post-{number}", "--publish")) as command:
                assert command.wait() == 0, command.text()
            assert eventually(lambda: deletions.committed() == {0: committed}, deadline_s=DEADLINE_S), rig.text()

        upload(range(4))
        for number in range(3):
            delete(number, committed=number + 1)
        after_commands = unlinked(worker, path.name)
        with closing(replay_process(rig, rig.folder / "replayed.jsonl")) as replay:
            assert replay.wait() == 0, replay.text()
        after_replay = unlinked(worker, path.name)
        upload(range(4, 12))
        delete(4, committed=4)
        code = worker.stop()

    metrics = worker.logged("worker.stopped")[0]["metrics"]
    assert ([], []) == (after_commands, after_replay)
    assert 0 == code
    assert [] == worker.logged("contents.not_forgotten")
    assert 12 == metrics['archive_writes_total{result="stored"}']
    assert {hashes[number] for number in (3, *range(5, 12))} == kept_in(path)
