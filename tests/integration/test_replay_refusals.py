"""
Replays that are refused, of nothing, or of uploads that cannot be judged: what is left behind, and what is told.

Nothing was judged here before, and nothing is fetched, so each upload that is replayed ends as a failed verdict.
"""

import contextlib
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.platform_side import Event, upload_event
from tests.replay_rig import lines_of, replay_process, replay_words, replayed
from tests.servers import eventually
from tests.worker_rig import POLICY, Instruments, WorkerRig
from worker.adapters.kafka_topics import topics_of
from worker.cli.replay import replay
from worker.dev.servers import KafkaAt, RedisAt

UPLOADS = 200
START_S = 90.0
"""Within which a process has loaded torch and written its first verdicts, also on a busy machine."""
ALONE = ("redis.enabled=false", "embeddings.keep=none")

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def rig(
    kafka: KafkaAt, redis_server: RedisAt, instruments: Instruments, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerRig]:
    """
    Uploads that nobody has judged, and one record that is no upload.
    """
    folder = tmp_path_factory.mktemp("refusals")
    with WorkerRig(kafka.bootstrap_servers, redis_server.url, instruments, folder) as made:
        made.create_topics(2)
        refs = ({"kind": "https", "url": f"https://images.example/{number}.jpg"} for number in range(UPLOADS))
        made.publish(upload_event(f"post/{number}", ref) for number, ref in enumerate(refs))
        made.publish([Event(b"user-1", b"no upload at all")])
        yield made


def is_there(rig: WorkerRig, topic: str) -> bool:
    """
    Whether there is such a topic.
    """
    with topics_of(rig.settings.kafka) as topics:
        return topic in topics.find([topic])


def typed(rig: WorkerRig, out: str | Path, *words: str) -> Result:
    """
    A replay as an operator starts it: without --verbose.
    """
    line = [word for word in replay_words(rig, out, *words, sets=ALONE)[1:] if word != "--verbose"]
    with contextlib.chdir(rig.folder):
        return CliRunner().invoke(replay, line, standalone_mode=False)


def test_a_range_that_ends_before_it_begins_is_refused_and_leaves_nothing(rig: WorkerRig) -> None:
    """
    Exit code 2, both options named, and no topic made.
    """
    out = f"{rig.name}-backward"
    refused = replayed(rig, out, "--from", "5", "--to", "2", "--no-fetch", sets=ALONE)

    assert 2 == refused.code
    assert "--from 5 lies behind --to 2" in refused.text
    assert not is_there(rig, out)


@pytest.mark.parametrize("words", [("--from", "2030-01-01T00:00:00Z"), ("--from", "5", "--to", "5")])
def test_an_empty_range_is_warned_of(rig: WorkerRig, tmp_path: Path, words: tuple[str, ...]) -> None:
    """
    Nothing is wrong with it, so it ends well; but the log and the result say that nothing was in it.
    """
    ended = typed(rig, tmp_path / "none.jsonl", "--no-fetch", *words)
    report = json.loads(ended.stdout)

    assert (None, 0) == (ended.exception, ended.return_value)
    assert (True, True, 0) == (report["finished"], report["empty_range"], report["replayed"])
    assert 1 == ended.stderr.count("replay.empty_range")


def test_a_refused_run_leaves_no_topic(rig: WorkerRig, tmp_path: Path) -> None:
    """
    A run that is to go on elsewhere, under another policy, or is finished already: refused before anything is made.
    """
    policy, out, elsewhere = tmp_path / "other.toml", f"{rig.name}-begun", f"{rig.name}-elsewhere"
    policy.write_text(POLICY.read_text().replace('version = "2"', 'version = "other"'))
    words = ("--run-id", "begun", "--no-fetch")
    with closing(replay_process(rig, out, *words, "--rate", "5", sets=ALONE)) as first:
        assert eventually(lambda: is_there(rig, out) and sum(rig.cluster.ends(out).values()) > 0, deadline_s=START_S), (
            first.text()
        )
        stopped = first.stop()
    moved = replayed(rig, elsewhere, *words, sets=ALONE)
    other = replayed(rig, elsewhere, *words, "--policy", str(policy), sets=ALONE)
    done = replayed(rig, out, *words, sets=ALONE)
    again = replayed(rig, elsewhere, *words, sets=ALONE)

    assert (1, 3, 3, 0, 2) == (stopped, moved.code, other.code, done.code, again.code), done.text
    assert f"out: began with topic:{out}, now topic:{elsewhere}" in moved.text
    assert "policy: began with" in other.text
    assert (True, UPLOADS) == (done.report["resumed"], done.report["failed"])
    assert not is_there(rig, elsewhere)


def test_uploads_that_fail_are_added_up_and_not_logged_one_by_one(rig: WorkerRig, tmp_path: Path) -> None:
    """
    The result has how many of each code, the verdicts what was wrong with each; --verbose logs them as the worker does.
    """
    quiet = typed(rig, tmp_path / "quiet.jsonl", "--no-fetch")
    loud = replayed(rig, tmp_path / "loud.jsonl", "--no-fetch", sets=ALONE)
    report = json.loads(quiet.stdout)

    assert (None, 0) == (quiet.exception, quiet.return_value)
    assert {"EMBEDDING_UNKNOWN": UPLOADS, "EVENT_INVALID": 1} == report["failures_by_code"]
    assert (UPLOADS, 1, False) == (report["failed"], report["dead_letters"], report["empty_range"])
    assert UPLOADS == len(lines_of(tmp_path / "quiet.jsonl"))
    assert 0 == quiet.stderr.count("upload.failed") == quiet.stderr.count("event.dead_lettered")
    assert UPLOADS == loud.text.count("upload.failed")
    assert report["failures_by_code"] == loud.report["failures_by_code"]
