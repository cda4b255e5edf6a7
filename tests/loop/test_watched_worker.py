"""
A whole worker that is watched: real instruments, Kafka in memory, and all that it tells over real HTTP.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from tests.loop_rig import Run
from tests.loop_world import DEAD_LETTERS, MISSING, UPLOADS, VERDICTS, WatchedOutbox, WatchedSource, World, eventually
from tests.promql import alert_queries, dashboard_queries, labels_by, matchers_in, names_in
from tests.scraped import Scrape, checked, fetched, scraped
from worker.app import build_loop, running_pipeline
from worker.doctor.port import http as doctor_http
from worker.domain import Partition
from worker.instruments import Instruments, open_instruments
from worker.operation.following import followed
from worker.operation.gauges import Watched
from worker.operation.serving import Serving, serving
from worker.ports import Standing
from worker.settings.operations import HttpSettings
from worker.settings.tree import KafkaSettings, RedisSettings, Settings, TopicSettings
from worker.telemetry.catalogue import BY_NAME, GAUGES
from worker.telemetry.drift import DriftWatch
from worker.telemetry.metrics import InMemoryRecorder

SETTINGS: Final = Settings(
    http=HttpSettings(enabled=True, port=0),
    redis=RedisSettings(enabled=False),
    kafka=KafkaSettings(
        delivery="at_least_once",
        commit_interval_s=0.01,
        topics=TopicSettings(uploads=UPLOADS, verdicts=VERDICTS, dead_letters=DEAD_LETTERS),
    ),
)
STANDING: Final = Standing(joined=True, lag={Partition(UPLOADS, 0): 0, Partition(UPLOADS, 1): 17})
UPLOADED: Final = [f"upload-{number}" for number in range(6)]


@pytest.fixture(scope="module")
def instruments() -> Instruments:
    """
    The starter: its bank carries a fitted judgement.
    """
    return open_instruments(SETTINGS, InMemoryRecorder())


@pytest.fixture(autouse=True)
def no_broker_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    How large a message the retry topics take is asked of a broker; here there is none to wait 15 s for.
    """
    monkeypatch.setattr("worker.operation.failing.least_limit_bytes", lambda *_: None)


@pytest.fixture
def told() -> Iterator[Serving]:
    """
    What a worker tells that has not loaded yet; a handful of uploads is enough for its drift.
    """
    with serving(SETTINGS, instance_id="one", drift=DriftWatch(least=5)) as told:
        yield told


def port_of(told: Serving) -> int:
    """
    Where it listens.
    """
    assert told.port is not None
    return told.port


class WatchedRun:
    """
    The worker in a thread of its own; what it tells of Kafka is ``standing``.
    """

    def __init__(self, world: World, told: Serving, instruments: Instruments) -> None:
        self.standing = STANDING
        self.unacknowledged_s = 0.0
        self._stack = ExitStack()
        world.closing.push(self._stack)
        pipeline = self._stack.enter_context(
            running_pipeline(
                SETTINGS,
                instruments,
                instruments.versions("live"),
                store=world.shelf,
                recorder=told.recorder,
                surround=lambda judge: followed(judge, None, told.judging_by),
            )
        )
        source, outbox = WatchedSource(world), WatchedOutbox(world, transactional_id=None)
        self.loop = build_loop(SETTINGS, source, outbox, pipeline, recorder=told.recorder, on_verdict=told.on_verdict)
        told.running(Watched(self.loop, pipeline, lambda: self.standing, lambda: self.unacknowledged_s))
        self.run = Run(self.loop)


def judged_all(world: World, told: Serving, instruments: Instruments) -> Scrape:
    """
    The scrape of a worker that has judged some uploads, failed at one and found one record unreadable.
    """
    worker = WatchedRun(world, told, instruments)
    world.publish(*UPLOADED)
    world.publish("gone", partition=1, picture=MISSING)
    world.publish_raw("nonsense", b"nonsense", partition=1)
    eventually(lambda: world.all_answered() and world.all_committed())
    # A turn later the loop has told of its last commit.
    turned_s = worker.loop.progress().turned_s
    eventually(lambda: worker.loop.progress().turned_s > turned_s)
    found = scraped(port_of(told))
    worker.run.drained()
    return found


def test_all_that_dashboard_and_alerts_name_is_told(world: World, told: Serving, instruments: Instruments) -> None:
    """
    Each metric that a query names is in the scrape of a running worker, and each gauge has a value there.
    """
    found = judged_all(world, told, instruments)
    queries = [*dashboard_queries(), *alert_queries()]
    named = set().union(*map(names_in, queries))
    gauges = {f"touchstone_{name}" for name in GAUGES}

    assert len(named) > 40
    assert set() == named - found.names
    assert set() == gauges - {sample.name for sample in found.samples}
    for query in queries:
        labels = {label for sample in found.samples if sample.name in names_in(query) for label in sample.labels}
        assert labels_by(query) <= labels | catalogued_labels(names_in(query)), query


def catalogued_labels(names: set[str]) -> set[str]:
    """
    The labels of these metrics as the catalogue has them.
    """
    bare = {name.removeprefix("touchstone_") for name in names}
    bare |= {name.removesuffix(end) for name in bare for end in ("_bucket", "_sum", "_count")}
    return {label.name for name, metric in BY_NAME.items() if name in bare for label in metric.labels} | {"le"}


def test_values_that_queries_ask_for_exist() -> None:
    """
    A query for a result that is never counted would be silent for ever.
    """
    metrics = {f"touchstone_{name}": metric for name, metric in BY_NAME.items()}
    asked = [matcher for query in [*dashboard_queries(), *alert_queries()] for matcher in matchers_in(query)]
    unknown = []
    for matcher in asked:
        if matcher.label == "le":
            metric = metrics[matcher.metric.removesuffix("_bucket")]
            known = float(matcher.value) in metric.buckets
        else:
            labels = {label.name: label.values for label in metrics[matcher.metric].labels}
            known = matcher.value in labels[matcher.label]
        if not known:
            unknown.append(matcher)

    assert len(asked) > 5
    assert [] == unknown


def test_the_numbers_are_those_of_the_run(world: World, told: Serving, instruments: Instruments) -> None:
    """
    Counts, histograms, gauges of the flow, of the bank and of drift, as they must be after these uploads.
    """
    found = judged_all(world, told, instruments)
    identity = instruments.bank.identity
    snapshot = told.snapshot()

    assert found.value("touchstone_events_consumed_total") == len(UPLOADED) + 2
    assert found.value("touchstone_verdicts_total", status="failed") == 1
    assert found.value("touchstone_failures_total", stage="fetch", code="FETCH_NOT_FOUND") == 1
    assert found.value("touchstone_dead_letters_total", code="EVENT_INVALID") == 1
    assert found.value("touchstone_fetch_seconds_count") == len(UPLOADED)
    assert found.value("touchstone_decode_seconds_count") == len(UPLOADED)
    assert found.value("touchstone_queue_wait_seconds_count", stage="fetch") == len(UPLOADED) + 2
    assert found.value("touchstone_end_to_end_seconds_count") == len(UPLOADED) + 1
    assert found.value("touchstone_probability_count") == len(UPLOADED)
    assert sum(one.value for one in found.samples if one.name == "touchstone_score_count") == len(UPLOADED)
    assert found.labels("touchstone_nearest_distance_count", "label") == set(identity.sizes)
    group = SETTINGS.kafka.group_id
    assert found.value("touchstone_bank_info", group=group, manifest=identity.manifest_sha256, bank=identity.id) == 1
    assert found.value("touchstone_bank_age_seconds") > 0
    assert found.value("touchstone_drift_samples", of="score") == len(UPLOADED)
    assert 0 <= found.value("touchstone_drift_ks", of="score") <= 1
    assert 0 <= found.value("touchstone_drift_ks", of="distance") <= 1
    assert found.value("touchstone_in_flight") == 0
    assert found.value("touchstone_in_flight_bytes") == 0
    assert found.value("touchstone_consumer_lag", partition="1") == 17
    assert found.value("touchstone_oldest_uncommitted_seconds", partition="0") == 0
    assert 0 < found.value("touchstone_encoder_utilisation") <= 1
    assert snapshot["events_consumed_total"] == len(UPLOADED) + 2


def test_health_from_before_the_model_is_loaded(world: World, told: Serving, instruments: Instruments) -> None:
    """
    Started and ready only once the loop runs; alive from the first moment; ready no more while it drains.
    """
    port = port_of(told)
    assert checked(port, "/livez")[0] == 200
    assert checked(port, "/startupz")[0] == 503
    status, said = checked(port, "/readyz")
    assert (status, said["checks"]) == (503, {"loaded": "the model and the bank are being loaded"})

    worker = WatchedRun(world, told, instruments)
    assert checked(port, "/startupz")[0] == 200
    assert checked(port, "/readyz")[0] == 200
    worker.standing = Standing(joined=False)
    assert checked(port, "/readyz")[0] == 503
    worker.standing = STANDING
    worker.unacknowledged_s = 11.0
    status, said = checked(port, "/readyz")
    assert (status, said["checks"]["producer"] == "ok") == (503, False)
    worker.run.drained()
    status, said = checked(port, "/readyz")
    assert (status, said["checks"]["draining"]) == (503, "the worker was told to stop")
    assert checked(port, "/livez")[0] == 200


def test_an_outcome_that_is_not_acknowledged_ages(world: World, told: Serving, instruments: Instruments) -> None:
    """
    The oldest uncommitted upload grows older while the broker holds its answer back, and is gone after it.
    """
    world.kafka.faults.acknowledgements_held = True
    worker = WatchedRun(world, told, instruments)
    world.publish("held")
    eventually(lambda: bool(world.verdicts()))

    def age_s() -> float:
        return scraped(port_of(told)).value("touchstone_oldest_uncommitted_seconds", partition="0")

    eventually(lambda: age_s() > 0)
    first_s = age_s()
    eventually(lambda: age_s() > first_s)
    assert scraped(port_of(told)).value("touchstone_in_flight") == 1
    world.kafka.faults.acknowledgements_held = False
    world.kafka.release_acknowledgements()
    eventually(lambda: age_s() == 0)
    worker.run.drained()


def test_info_names_versions_and_partitions(world: World, told: Serving, instruments: Instruments) -> None:
    """
    What runs here, by hashes that two workers can be compared by; no setting in the clear.
    """
    worker = WatchedRun(world, told, instruments)
    status, said = checked(port_of(told), "/info")
    worker.run.drained()

    assert status == 200
    assert said["bank"]["manifest_sha256"] == instruments.bank.identity.manifest_sha256
    assert said["bank"]["judgement"] == instruments.judgement_id
    assert len(said["config_sha256"]) == 64
    assert said["partitions"] == [f"{UPLOADS}-0", f"{UPLOADS}-1"]
    assert set(said) == {"version", "schema", "config_sha256", "partitions", "bank", "policy", "releases"}


def test_the_doctor_finds_a_worker_on_its_port(world: World, told: Serving, instruments: Instruments) -> None:
    """
    While it is ready that is well, and while it drains that is told.
    """
    here = SETTINGS.model_copy(update={"http": HttpSettings(enabled=True, port=port_of(told))})
    worker = WatchedRun(world, told, instruments)
    well = doctor_http(here)
    worker.run.drained()
    draining = doctor_http(here)

    assert ("ok", True) == (well.status, well.text.endswith(", ready"))
    assert "warning" == draining.status
    assert "it is not ready: draining: the worker was told to stop" in draining.text


def test_scrapes_do_not_stop_the_loop(world: World, told: Serving, instruments: Instruments) -> None:
    """
    Every upload is judged while somebody scrapes without pause, and the loop turns between scrapes.
    """
    worker = WatchedRun(world, told, instruments)
    world.publish(*(f"busy-{number}" for number in range(30)))
    turns: set[float] = set()

    def scraped_and_done() -> bool:
        turns.add(worker.loop.progress().turned_s)
        scraped(port_of(told))
        return world.all_answered()

    eventually(scraped_and_done)
    worker.run.drained()

    assert len(world.judged()) == 30
    assert len(turns) > 1


def test_nothing_is_told_unless_it_is_asked_for(instruments: Instruments) -> None:
    """
    Without http.enabled there is no server and no second recorder, and no verdict is looked at.
    """
    with serving(SETTINGS.model_copy(update={"http": HttpSettings()}), instance_id="one") as told:
        assert told.port is None
        assert told.on_verdict is None
        assert isinstance(told.recorder, InMemoryRecorder)


def test_metrics_are_told_before_anything_runs(told: Serving) -> None:
    """
    A scrape while the model is being loaded finds the program, not ready, and counters at 0.
    """
    found = scraped(port_of(told))

    assert found.value("touchstone_build_info", group=SETTINGS.kafka.group_id) == 1
    assert found.value("touchstone_ready") == 0
    assert found.value("touchstone_events_consumed_total") == 0
    assert fetched(port_of(told), "/metrics", method="POST")[0] == 405
