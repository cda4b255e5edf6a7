"""
The recorder for Prometheus: its catalogue, its bounds, and what a scrape finds.
"""

import threading
from typing import get_args

import pytest

from tests.scraped import OPEN_METRICS, Scrape
from worker.metric_names import GaugeName, MetricName
from worker.ports import Recorder
from worker.telemetry.catalogue import BY_NAME, GAUGES, MEASURED, OTHER, Label
from worker.telemetry.metrics import EveryRecorder, InMemoryRecorder
from worker.telemetry.prometheus import PrometheusRecorder, Reading

MOST_SERIES = 512
"""Of one metric, whatever it is given; that of partitions is bounded by what is assigned."""


def scrape_of(recorder: PrometheusRecorder) -> Scrape:
    """
    What Prometheus makes of it.
    """
    body, content_type = recorder.exposition(None)
    assert content_type.startswith("text/plain")
    return Scrape(body.decode())


def test_catalogue_knows_every_name_and_no_other() -> None:
    """
    A name that is declared is described, once, as something measured or as a gauge.
    """
    assert set(get_args(MetricName)) == set(MEASURED)
    assert set(get_args(GaugeName)) == set(GAUGES)
    assert set() == set(MEASURED) & set(GAUGES)


@pytest.mark.parametrize("name", BY_NAME)
def test_names_follow_the_conventions_of_prometheus(name: str) -> None:
    """
    Counters, and nothing else, end in total; units are base units; a help text is a sentence.
    """
    metric = BY_NAME[name]
    parts = name.split("_")

    assert (metric.kind == "counter") == name.endswith("_total")
    assert not {"ms", "us", "milliseconds", "minutes", "kb", "mb", "kilobytes", "megabytes", "percent"} & set(parts)
    assert not name.endswith(("_count", "_sum", "_bucket", "_info_total"))
    assert (metric.kind == "histogram") == bool(metric.buckets)
    assert sorted(set(metric.buckets)) == list(metric.buckets)
    assert metric.help.endswith(".")
    assert metric.help[0].isupper() or metric.help[0].isdigit()


@pytest.mark.parametrize("name", MEASURED)
def test_labels_are_bounded(name: MetricName) -> None:
    """
    Whatever is counted under whatever labels, there are no more series than the catalogue allows; the rest is "other".
    """
    recorder = PrometheusRecorder()
    metric = MEASURED[name]
    labels = [label.name for label in metric.labels]
    for turn in range(3_000 if labels else 3):
        given = dict.fromkeys(labels, f"made up {turn}")
        if metric.kind == "counter":
            recorder.count(name, 1, **given)
        else:
            recorder.observe(name, 0.5, **given)
    suffix = "" if metric.kind == "counter" else "_count"
    found = [sample for sample in scrape_of(recorder).samples if sample.name == f"touchstone_{name}{suffix}"]
    most = 1
    for one in metric.labels:
        most *= one.bound

    assert len(found) <= min(most, MOST_SERIES)
    assert sum(sample.value for sample in found) == (3_000 if labels else 3)
    for label in labels:
        assert any(sample.labels[label] == OTHER for sample in found)


def test_values_that_are_listed_are_told() -> None:
    """
    A listed value stands for itself beside the others.
    """
    recorder = PrometheusRecorder()
    recorder.count("failures_total", 2, stage="fetch", code="FETCH_DENIED")
    recorder.count("failures_total", 3, stage="lunch", code="FETCH_DENIED")
    found = scrape_of(recorder)

    assert found.value("touchstone_failures_total", stage="fetch", code="FETCH_DENIED") == 2
    assert found.value("touchstone_failures_total", stage=OTHER, code="FETCH_DENIED") == 3


def test_counters_with_few_labels_begin_at_zero() -> None:
    """
    So that the first failure is a rise from 0 and not a new series without a rate.
    """
    found = scrape_of(PrometheusRecorder())

    assert found.value("touchstone_verdicts_total", status="failed") == 0
    assert found.value("touchstone_forgotten_total", store="redis", result="failed") == 0
    assert found.labels("touchstone_cache_requests_total", "result") >= {"hit", "miss", "error"}
    assert found.value("touchstone_events_consumed_total") == 0


def test_histograms_hold_their_sum_and_count() -> None:
    """
    Each value lies in every bucket above it.
    """
    recorder = PrometheusRecorder()
    for value in (0.02, 0.3, 40.0):
        recorder.observe("fetch_seconds", value)
    found = scrape_of(recorder)

    assert found.value("touchstone_fetch_seconds_count") == 3
    assert found.value("touchstone_fetch_seconds_sum") == pytest.approx(40.32)
    assert found.value("touchstone_fetch_seconds_bucket", le="0.025") == 1
    assert found.value("touchstone_fetch_seconds_bucket", le="30.0") == 2
    assert found.value("touchstone_fetch_seconds_bucket", le="+Inf") == 3


def test_gauges_are_read_when_they_are_asked_for() -> None:
    """
    Not before, and as they are at that moment.
    """
    recorder = PrometheusRecorder()
    waiting = [3.0, 5.0]
    recorder.read_gauges(lambda: [Reading("queue_depth", waiting.pop(0), {"stage": "decode"}), Reading("ready", 1)])

    assert scrape_of(recorder).value("touchstone_queue_depth", stage="decode") == 3
    assert scrape_of(recorder).value("touchstone_queue_depth", stage="decode") == 5


def test_open_metrics_are_told_to_who_asks_for_them() -> None:
    """
    The newer format parses as such, and tells no moments of creation.
    """
    recorder = PrometheusRecorder()
    recorder.count("events_consumed_total", 7)
    body, content_type = recorder.exposition(OPEN_METRICS)
    found = Scrape(body.decode(), open_metrics=True)

    assert content_type.startswith("application/openmetrics-text")
    assert found.value("touchstone_events_consumed_total") == 7
    assert not [one.name for one in found.samples if one.name.endswith("_created")]


def test_recorders_side_by_side_count_alike() -> None:
    """
    The run's last log line and the metrics say the same.
    """
    memory, prometheus = InMemoryRecorder(), PrometheusRecorder()
    recorder: Recorder = EveryRecorder(memory, prometheus)
    recorder.count("verdicts_total", 2, status="decided")
    recorder.observe("micro_batch_size", 8)

    assert memory.snapshot()['verdicts_total{status="decided"}'] == 2
    assert memory.snapshot()["micro_batch_size_sum"] == 8
    assert scrape_of(prometheus).value("touchstone_verdicts_total", status="decided") == 2
    assert scrape_of(prometheus).value("touchstone_micro_batch_size_sum") == 8


def test_no_count_is_lost_while_somebody_scrapes() -> None:
    """
    Four threads count while a fifth scrapes: the sums are exact.
    """
    recorder = PrometheusRecorder()
    done = threading.Event()

    def count() -> None:
        for turn in range(2_000):
            recorder.count("commits_total", result="ok" if turn % 2 else "refused")
            recorder.observe("search_seconds", 0.001)

    def scrape() -> None:
        while not done.is_set():
            scrape_of(recorder)

    scraper = threading.Thread(target=scrape)
    scraper.start()
    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    scraper.join()
    found = scrape_of(recorder)

    assert found.value("touchstone_commits_total", result="ok") == 4_000
    assert found.value("touchstone_commits_total", result="refused") == 4_000
    assert found.value("touchstone_search_seconds_count") == 8_000


def test_a_label_has_values_or_a_limit() -> None:
    """
    Every label of every metric is bounded by the one or the other.
    """
    labels: list[Label] = [label for metric in BY_NAME.values() for label in metric.labels]

    assert [] == [label.name for label in labels if bool(label.values) == bool(label.limit)]
