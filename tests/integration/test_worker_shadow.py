"""
A worker with a shadow on a real Kafka: what the shadow topic holds, and that the live topic does not know of it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from schemas.verdict import TYPE
from tests.command_line import command_line
from tests.outcome_reader import OutcomeReader
from tests.peers import assert_cloudevent, assert_valid
from tests.platform_side import DEADLINE_S, Event, inline, small_jpeg, upload_event
from tests.worker_rig import POLICY, WorkerRig
from worker.adapters.kafka_topics import topics_of
from worker.adapters.topic_plan import TopicsFile, TopicTable, plan_topics, wanted_topics
from worker.errors import EXIT_CANNOT_START, EXIT_OK

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(400)]

PARTITIONS = 2
UPLOADS = 24
NAME = "stricter-policy"
ALONE = "batch.size=1"
"""Two workers group uploads differently, and the encoder rounds differently in groups of other sizes."""

RESULTS = ("judged", "failed", "dropped", "published", "unacknowledged")


@pytest.fixture
def candidate_policy(tmp_path: Path) -> Path:
    """
    The shipped policy, under another name and with a threshold that nothing reaches.
    """
    path = tmp_path / "candidate.toml"
    text = POLICY.read_text().replace('id = "default"', 'id = "stricter"')
    path.write_text(text.replace("threshold = 0.7\n", "threshold = 1.0\n"))
    return path


@contextmanager
def shadow_topic(rig: WorkerRig) -> Iterator[str]:
    """
    The shadow topic of a rig, while inside.
    """
    kafka = rig.settings.kafka
    file = TopicsFile(shadow_verdicts=TopicTable(partitions=PARTITIONS))
    with topics_of(kafka) as topics:
        wanted = wanted_topics(kafka, file, brokers=topics.brokers(), roles=("shadow_verdicts",))
        topics.apply(plan_topics(wanted, {}))
    try:
        yield kafka.topics.shadow_verdicts
    finally:
        with topics_of(kafka) as topics:
            topics.delete([kafka.topics.shadow_verdicts])


def shadow_sets(rig: WorkerRig, policy: Path, *, share: float, judgement: Path | None = None) -> list[str]:
    """
    The settings of a shadow with this candidate policy, and these candidate heads.
    """
    return [
        *([] if judgement is None else [f"shadow.judgement_path={judgement}"]),
        "shadow.enabled=true",
        f"shadow.name={NAME}",
        f"shadow.policy_path={policy}",
        f"shadow.sample_rate={share}",
        f"kafka.topics.shadow_verdicts={rig.name}-shadow",
    ]


def some_events(first: int = 0) -> list[Event]:
    """
    Uploads with the same event ids each time.
    """
    numbers = range(first, first + UPLOADS)
    return [
        upload_event(f"content-{number}", inline(small_jpeg(number)), event_id=f"event-{number}") for number in numbers
    ]


def lasting(verdict: dict[str, Any]) -> dict[str, Any]:
    """
    A verdict without what differs from run to run: times, and where its event lay.
    """
    kept = {name: value for name, value in verdict.items() if name not in {"timing", "cache"}}
    return kept | {"input": {name: verdict["input"][name] for name in ("event_id", "event_source")}}


def live_verdicts(rig: WorkerRig, *sets: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """
    The live verdicts of a worker with these settings by event, and its last log line.
    """
    worker = rig.start("one", *sets)
    published = rig.publish(some_events())
    reader = rig.reader()
    assert reader.until_answered(published, DEADLINE_S * 3), worker.text()
    assert worker.stop() == 0
    stopped = dict(worker.until_logged("worker.stopped"))
    return {one["input"]["event_id"]: lasting(one) for one in reader.verdicts()}, stopped


def test_shadow_verdicts_beside_unchanged_live_ones(new_rig: Callable[..., WorkerRig], candidate_policy: Path) -> None:
    """
    Each upload has a shadow verdict with mode, run id and sampledrate; the live topic is the same as without a shadow.
    """
    with_shadow, without = new_rig().create_topics(PARTITIONS), new_rig().create_topics(PARTITIONS)
    with_shadow.configure(*shadow_sets(with_shadow, candidate_policy, share=1.0))
    with shadow_topic(with_shadow) as topic:
        live, stopped = live_verdicts(with_shadow, ALONE)
        with OutcomeReader(with_shadow.bootstrap_servers, [topic], isolation_level="read_committed") as reader:
            assert reader.until(lambda: len(reader.outcomes) >= UPLOADS), with_shadow.text()
            shadowed = list(reader.outcomes)
    alone, _ = live_verdicts(without, ALONE)
    for outcome in shadowed:
        assert_cloudevent(outcome.headers, outcome.value, outcome.key)
        assert_valid(TYPE, outcome.value)

    assert alone == live
    assert UPLOADS == len(live)
    assert {("live", None)} == {(one["mode"], one["run_id"]) for one in live.values()}
    assert {("shadow", NAME)} == {(one.data["mode"], one.data["run_id"]) for one in shadowed}
    assert {b"1"} == {dict(one.headers)["ce_sampledrate"] for one in shadowed}
    assert {"stricter"} == {one.data["versions"]["policy"]["id"] for one in shadowed}
    assert set(live) == {one.data["input"]["event_id"] for one in shadowed}
    assert UPLOADS == len({one.data["verdict_id"] for one in shadowed} - {one["verdict_id"] for one in live.values()})
    assert UPLOADS == stopped["metrics"]['shadow_total{result="published"}']


def test_a_shadow_topic_that_goes_away_costs_no_live_verdict(
    new_rig: Callable[..., WorkerRig], candidate_policy: Path
) -> None:
    """
    While the shadow topic is gone every upload has its live verdict, the worker drains well, and the loss is counted.
    """
    rig = new_rig().create_topics(PARTITIONS)
    rig.configure(*shadow_sets(rig, candidate_policy, share=1.0), "kafka.publish_timeout_s=5")
    with shadow_topic(rig) as topic:
        worker = rig.start("one")
        worker.until_started()
        with topics_of(rig.settings.kafka) as topics:
            topics.delete([topic])
        published = rig.publish(some_events())
        reader = rig.reader()
        answered = reader.until_answered(published)
        code = worker.stop()
        metrics = worker.until_logged("worker.stopped")["metrics"]
    told = {result: metrics.get(f'shadow_total{{result="{result}"}}', 0) for result in RESULTS}

    assert answered, worker.text()
    assert code == 0
    assert UPLOADS == len(reader.verdicts())
    # Deleting takes the broker a moment: the first may still arrive.
    assert told["unacknowledged"] > 0, told
    assert UPLOADS == told["judged"] + told["dropped"] + told["failed"]
    assert told["judged"] == told["published"] + told["unacknowledged"]
    assert worker.logged("shadow.lost")


def test_a_missing_shadow_topic_is_told_at_the_start(new_rig: Callable[..., WorkerRig], candidate_policy: Path) -> None:
    """
    A worker whose shadow has no topic does not start, and says which is missing and what creates it.
    """
    rig = new_rig().create_topics(PARTITIONS)
    worker = rig.start("one", *shadow_sets(rig, candidate_policy, share=0.5))
    code = worker.wait(DEADLINE_S * 3)

    assert EXIT_CANNOT_START == code
    assert f"no topic {rig.name}-shadow" in worker.text()
    assert "touchstone topics apply" in worker.text()


def test_candidate_heads_beside_the_live_bank(
    new_rig: Callable[..., WorkerRig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    What `touchstone fit --out` left judges the live bank's references in the shadow, and `diff` tells the sides apart.
    """
    rig = new_rig().create_topics(PARTITIONS)
    policy, heads = tmp_path / "as-live.toml", tmp_path / "heads"
    # The bank has twelve reals, which support no lower rate.
    policy.write_text(POLICY.read_text().replace("alpha = 0.05\n", "alpha = 0.1\n", 1))
    touchstone = command_line(monkeypatch, capsys)
    bank = rig.settings.bank.path
    fitted = touchstone("fit", bank, "--out", heads, "--head", "knn", "--json")
    # Of the folder three files suffice: the references are the live bank's.
    for name in ("vectors.safetensors", "entries.jsonl", "probe.png"):
        (heads / name).unlink()
    rig.configure(*shadow_sets(rig, policy, share=1.0, judgement=heads))
    with shadow_topic(rig) as topic:
        live, stopped = live_verdicts(rig)
        with OutcomeReader(rig.bootstrap_servers, [topic], isolation_level="read_committed") as reader:
            assert reader.until(lambda: len(reader.outcomes) >= UPLOADS), rig.text()
            shadowed = [outcome.data for outcome in reader.outcomes]
        sets = [word for one in rig.sets for word in ("--set", one)]
        compared = touchstone("diff", f"topic:{rig.name}-verdicts", f"run:{NAME}", "--json", *sets)
    identity = fitted.json["judgement"]["id"]
    differing = {row["name"]: row["b"] for row in compared.json["versions"] if row["differs"]}

    assert EXIT_OK == fitted.code
    assert set(live) == {one["input"]["event_id"] for one in shadowed}
    assert {None} == {one["versions"]["bank"]["judgement"] for one in live.values()}
    assert {(identity, 24)} == {
        (one["versions"]["bank"]["judgement"], one["versions"]["bank"]["entries"]) for one in shadowed
    }
    assert {identity} == {one["calibration"]["id"] for one in shadowed}
    assert UPLOADS == stopped["metrics"]['shadow_total{result="published"}']
    assert UPLOADS == compared.json["compared"]
    assert {"bank.judgement", "bank.version", "bank.manifest_sha256"} <= set(differing)
    assert [{"value": identity, "events": UPLOADS}] == differing["bank.judgement"]
