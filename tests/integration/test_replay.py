"""
Replays of a real history on a real Kafka and a real Redis: killed and resumed, re-scored, refused.

TOUCHSTONE_REPLAY_UPLOADS asks for a longer history than the usual one, or for a shorter one while one works on this.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis

from tests.command_line import Ran, Touchstone, command_line
from tests.outcome_reader import OutcomeReader
from tests.platform_side import Cluster, Event, Position, small_jpeg, upload_event
from tests.replay_rig import Verdict, decision_of, lines_of, position_of, replay_process, replayed
from tests.scripted_web import ScriptedWeb, answer, scripted_web
from tests.servers import eventually
from tests.worker_rig import POLICY, Instruments, WorkerRig
from worker.adapters.kafka_run_state import find_run
from worker.dev.servers import KafkaAt, RedisAt

UPLOADS = int(os.environ.get("TOUCHSTONE_REPLAY_UPLOADS", "5000"))
DEADLINE_S = 60.0 + UPLOADS / 10
PARTITIONS = 6
MISSING_EVERY = 20
"""Of so many uploads one names an image that is not there."""

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(round(600 + UPLOADS / 2))]

WITHOUT_REDIS = ("redis.enabled=false",)


@dataclass(frozen=True, slots=True)
class History:
    """
    Uploads that a live worker has judged, with the embeddings kept in a file; the worker has stopped.

    ``live`` are its verdicts by position; ``web`` is the image store, with the log of its requests.
    """

    rig: WorkerRig
    web: ScriptedWeb
    cluster: Cluster
    live: Mapping[Position, Verdict]
    letters: int

    def ends(self) -> dict[int, int]:
        """
        Where the live verdict topic ends.
        """
        return self.cluster.ends(self.rig.settings.kafka.topics.verdicts)


def uploads(web: ScriptedWeb) -> Iterator[Event]:
    """
    Pictures behind an image store, some of them missing, some twice; and one record that is no upload.
    """
    for number in range(UPLOADS):
        picture = number % (UPLOADS - 5)
        path = f"/{picture}.jpg"
        # By picture and not by upload: what was missing for the first of twins must not be there for the second.
        web.routes[path] = answer(404) if picture % MISSING_EVERY == 3 else answer(200, small_jpeg(picture))
        ref = {"kind": "https", "url": web.url(path, host="127.0.0.1")}
        yield upload_event(f"post/{number}", ref, key=f"user-{number % 40}")
    yield Event(b"user-1", b"no upload at all")


@pytest.fixture(scope="module")
def history(
    kafka: KafkaAt, redis_server: RedisAt, instruments: Instruments, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[History]:
    """
    A history, made once.
    """
    folder = tmp_path_factory.mktemp("replay")
    with ExitStack() as stack:
        web = stack.enter_context(scripted_web())
        rig = stack.enter_context(WorkerRig(kafka.bootstrap_servers, redis_server.url, instruments, folder))
        rig.configure("fetch.allow_http=true", "fetch.allow_private_addresses=true", "fetch.threads=8")
        # On a busy machine the store may be slow: what timed out live and not again would be another decision.
        rig.configure("fetch.connect_timeout_s=20", "fetch.read_timeout_s=30", "fetch.total_timeout_s=60")
        rig.configure("fetch.host_wait_s=60")
        rig.configure("embeddings.keep=file", f"embeddings.path={json.dumps(str(folder / 'kept.sqlite'))}")
        rig.create_topics(PARTITIONS)
        worker = rig.start("live")
        reader = rig.reader()
        worker.until_started()
        published = rig.publish(uploads(web))
        assert reader.until_answered(published, DEADLINE_S), worker.text()
        assert worker.stop() == 0
        live = {position_of(verdict): verdict for verdict in reader.verdicts()}
        codes = {verdict["error"]["code"] for verdict in live.values() if verdict["error"]}
        assert codes == {"FETCH_NOT_FOUND"}, codes
        yield History(rig, web, rig.cluster, live, len(published) - len(live))


def of_topic(history: History, topic: str, stack: ExitStack) -> OutcomeReader:
    """
    A reader of a topic that a replay wrote to, as a platform reads: committed only.
    """
    servers = history.rig.bootstrap_servers
    reader = stack.enter_context(OutcomeReader(servers, [topic], isolation_level="read_committed"))
    assert reader.until_read(topic, history.cluster.ends(topic))
    return reader


def require_same_decisions(history: History, verdicts: list[Verdict], run_id: str) -> None:
    """
    One verdict for each live one, none twice, each decided as then, and each naming what it supersedes.
    """
    by_position = {position_of(verdict): verdict for verdict in verdicts}

    assert Counter(map(position_of, verdicts)) == Counter(history.live.keys())
    assert {verdict["mode"] for verdict in verdicts} == {"replay"}
    assert {verdict["run_id"] for verdict in verdicts} == {run_id}
    for position, live in history.live.items():
        assert by_position[position]["supersedes"] == live["verdict_id"]
        assert decision_of(by_position[position]) == decision_of(live)


def test_killed_and_resumed_to_a_topic(history: History) -> None:
    """
    A replay at equal versions is killed in the middle and resumed: no decision differs, none is missing, none is twice.

    Nothing is written to the live topic, and no image with a known embedding is asked for.
    """
    out, ends, asked = f"{history.rig.name}-replayed", history.ends(), len(history.web.asked)
    with ExitStack() as stack:
        first = replay_process(history.rig, out, "--run-id", "topical", "--rate", str(UPLOADS / 12))
        stack.enter_context(closing(first))
        first.until_logged("batch.released", DEADLINE_S)
        servers = history.rig.bootstrap_servers
        early = stack.enter_context(OutcomeReader(servers, [out], isolation_level="read_committed"))
        assert early.until(lambda: len(early.outcomes) > UPLOADS // 10, DEADLINE_S), first.text()
        first.process.kill()
        assert first.wait() == -9
        partly = len(early.outcomes)
        second = replayed(history.rig, out, "--run-id", "topical")
        verdicts = of_topic(history, out, stack).verdicts()

    missing = sum(verdict["outcome"]["status"] == "failed" for verdict in history.live.values())
    assert second.code == 0, second.text
    assert 0 < partly < UPLOADS
    require_same_decisions(history, verdicts, "topical")
    assert second.report["resumed"] is True
    assert second.report["replayed"] == len(history.live)
    assert second.report["from_embeddings"] == len(history.live) - missing
    assert second.report["failed"] == missing > 0
    assert second.report["dead_letters"] == history.letters == 1
    assert history.ends() == ends
    assert len(history.web.asked) - asked <= missing + missing // 2 + 8


def test_killed_and_resumed_to_a_file(history: History, tmp_path: Path) -> None:
    """
    The same to a file: what the killed process had half written is cut off, and each verdict is there once.
    """
    out = tmp_path / "replayed.jsonl"
    with closing(
        replay_process(history.rig, out, "--run-id", "filed", "--rate", str(UPLOADS / 6), sets=WITHOUT_REDIS)
    ) as first:
        assert eventually(lambda: out.exists() and out.stat().st_size > 0, deadline_s=DEADLINE_S), first.text()
        first.process.kill()
        assert first.wait() == -9
    with out.open("ab") as file:
        file.write(b'{"half a verdict')
    second = replayed(history.rig, out, "--run-id", "filed", sets=WITHOUT_REDIS)
    third = replayed(history.rig, out, "--run-id", "filed", sets=WITHOUT_REDIS)

    assert second.code == 0, second.text
    require_same_decisions(history, lines_of(out), "filed")
    assert (second.report["resumed"], second.report["replayed"]) == (True, len(history.live))
    assert second.report["dead_letters"] == history.letters
    assert find_run(history.rig.settings.kafka, "filed") is None, "a topic's run of that name would be taken for it"
    assert third.code == 2
    assert "finished" in third.text


def test_a_changed_policy_is_rescored_and_the_diff_names_what_changed(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    With another policy, no fetch and no Redis: every kept upload is judged anew, and the image store hears nothing.

    Uploads without embedding end as failed verdicts that say so. What the diff names are exactly the uploads whose
    decision is another one.
    """
    policy, out, asked = tmp_path / "strict.toml", tmp_path / "strict.jsonl", len(history.web.asked)
    policy.write_text(
        POLICY.read_text()
        .replace('version = "2"', 'version = "strict"')
        .replace("min_margin = 0.2", "min_margin = 0.99")
    )
    done = replayed(history.rig, out, "--policy", str(policy), "--no-fetch", "--run-id", "strict", sets=WITHOUT_REDIS)
    told = diff_of_live(history, out, command_line(monkeypatch, capsys))
    verdicts = lines_of(out)
    judged = [verdict for verdict in verdicts if verdict["outcome"]["status"] != "failed"]
    failed = [verdict for verdict in verdicts if verdict["outcome"]["status"] == "failed"]

    assert done.code == 0, done.text
    assert len(history.web.asked) == asked
    assert {verdict["versions"]["policy"]["version"] for verdict in verdicts} == {"strict"}
    assert {verdict["error"]["code"] for verdict in failed} == {"EMBEDDING_UNKNOWN"}
    assert {verdict["cache"]["tier"] for verdict in judged} <= {"archive", "process"}
    assert done.report["from_embeddings"] == len(judged) == len(history.live) - len(failed)
    assert done.report["fetched"] == 0
    assert {verdict["outcome"]["status"] for verdict in judged} == {"abstained"}
    require_named(history, verdicts, told)
    assert told.json["flips"] == sum(verdict["outcome"]["status"] == "decided" for verdict in history.live.values())
    assert {row["name"] for row in told.json["versions"] if row["differs"]} >= {"policy.version", "policy.sha256"}


def diff_of_live(history: History, replay: Path, touchstone: Touchstone, *words: object) -> Ran:
    """
    What the diff says of the live verdicts and the replay's, when no decision may be another one.
    """
    before = replay.with_name("live.jsonl")
    before.write_text("".join(f"{json.dumps(verdict)}\n" for verdict in history.live.values()))
    return touchstone("diff", before, replay, "--json", "--max-flips", "0", *words)


def require_named(history: History, verdicts: list[Verdict], told: Ran) -> None:
    """
    The diff names the uploads whose decision is another one, and nothing else, and lets no gate pass.
    """
    after = {position_of(verdict): verdict for verdict in verdicts}
    changed = {
        live["input"]["event_id"]
        for position, live in history.live.items()
        if decision_word(live) != decision_word(after[position])
    }
    found = told.json

    assert 1 == told.code, told.err
    assert ["max-flips"] == [gate["name"] for gate in found["gates"] if not gate["passed"]]
    assert len(history.live) == found["compared"]
    assert len(changed) == found["flips"] > 0
    assert changed == {one["event_id"] for one in found["listed"]["flipped"]}
    assert [] == found["listed"]["only_in_a"] == found["listed"]["only_in_b"]


def test_a_changed_bank_is_rescored_and_the_diff_names_what_changed(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Some uploads become references of the other label: judged anew from their embeddings, and told apart by the diff.

    The image store hears nothing. What the diff names are exactly the uploads whose decision is another one.
    """
    taught, candidate, asked = tmp_path / "taught", tmp_path / "candidate", len(history.web.asked)
    taught.mkdir()
    for number in range(10):
        (taught / f"{number}.jpg").write_bytes(small_jpeg(number))
    touchstone = command_line(monkeypatch, capsys)
    sets = [word for one in history.rig.sets for word in ("--set", one)]
    bank = history.rig.settings.bank.path
    assert bank is not None
    added = touchstone("bank", "add", bank, taught, "--label", "ai_generated", "--out", candidate, *sets)
    out, report = tmp_path / "again.jsonl", tmp_path / "diff.html"
    again = replayed(history.rig, out, "--bank", str(candidate), "--no-fetch", sets=WITHOUT_REDIS)
    told = diff_of_live(history, out, touchstone, "--out", report)

    assert (0, 0) == (added.code, again.code), added.err + again.text
    assert len(history.web.asked) == asked
    assert 0 == again.report["fetched"]
    require_named(history, lines_of(out), told)
    assert "<svg" in report.read_text()


def decision_word(verdict: Verdict) -> str:
    """
    What was decided, in one word.
    """
    return str(verdict["outcome"]["decision"] or verdict["outcome"]["status"])


def test_stopped_by_a_signal_and_not_resumed_under_other_versions(history: History, tmp_path: Path) -> None:
    """
    SIGTERM ends a replay with exit code 1; it goes on later, but not with another policy.
    """
    policy, out = tmp_path / "other.toml", tmp_path / "stopped.jsonl"
    policy.write_text(POLICY.read_text().replace('version = "2"', 'version = "other"'))
    with closing(replay_process(history.rig, out, "--run-id", "stopped", "--rate", "5")) as first:
        assert eventually(lambda: out.exists() and out.stat().st_size > 0, deadline_s=DEADLINE_S), first.text()
        stopped = first.stop()
    other = replayed(history.rig, out, "--run-id", "stopped", "--policy", str(policy))
    unnamed = replayed(history.rig, out)
    done = replayed(history.rig, out, "--run-id", "stopped")

    assert stopped == 1
    assert other.code == 3
    assert "policy: began with" in other.text
    assert unnamed.code == 3
    assert "--run-id stopped" in unnamed.text
    assert done.code == 0, done.text
    assert Counter(map(position_of, lines_of(out))) == Counter(history.live.keys())


def test_a_replay_that_fetches_leaves_the_live_cache_alone(
    history: History, redis_server: RedisAt, tmp_path: Path
) -> None:
    """
    Where nothing is known of the images they are fetched and encoded, and Redis learns of it only when told to.
    """
    name = f"{history.rig.name}-elsewhere"
    # Fewer at once than there are uploads: an operator's limit on memory.
    sets = (f"redis.namespace={name}", "embeddings.keep=none", "flow.max_in_flight=5", "batch.size=5")
    # The file's path goes with it: the rig's own settings name one.
    kept = tuple(one for one in history.rig.sets if not one.startswith("embeddings."))
    with closing(Redis.from_url(redis_server.url)) as redis:

        def keys() -> int:
            return sum(1 for _ in redis.scan_iter(f"touchstone:{name}:*"))

        rig = history.rig
        done = replayed(rig, tmp_path / "a.jsonl", "--from", "0", "--to", "3", sets=sets, only=kept)
        untouched = keys()
        under_way = [int(number) for number in re.findall(r'"in_flight": ?(\d+)', done.text)]
        told = replayed(rig, tmp_path / "b.jsonl", "--from", "0", "--to", "3", "--write-cache", sets=sets, only=kept)
        written = keys()

    assert done.code == told.code == 0, done.text + told.text
    assert done.report["fetched"] > 0
    assert done.report["from_embeddings"] == 0
    assert 0 < len(under_way)
    assert max(under_way) <= 5
    assert untouched == 0
    assert written > 0
