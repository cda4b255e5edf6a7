"""
The recorder that remembers.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from worker.metric_names import MetricName
from worker.ports import Recorder
from worker.telemetry.metrics import InMemoryRecorder, Series, Summary


def test_counters_add_up_by_name_and_labels() -> None:
    """
    Each set of labels is a series of its own, in whatever order the labels come.
    """
    recorder = InMemoryRecorder()
    recorder.count("failures_total", stage="fetch", code="FETCH_DENIED")
    recorder.count("failures_total", 2, code="FETCH_DENIED", stage="fetch")
    recorder.count("failures_total", stage="decode", code="DECODE_FAILED")
    recorder.count("pauses_total")

    expected = {
        'failures_total{code="DECODE_FAILED",stage="decode"}': 1,
        'failures_total{code="FETCH_DENIED",stage="fetch"}': 3,
        "pauses_total": 1,
    }
    assert expected == recorder.snapshot()


def test_observations_are_summarised() -> None:
    """
    Of the values of a series, count, sum, least and greatest are kept.
    """
    recorder = InMemoryRecorder()
    for value in (3.0, 1.0, 2.0):
        recorder.observe("encode_seconds", value)
    recorder.observe("micro_batch_size", 8, device="cpu")

    expected = {
        "encode_seconds_count": 3,
        "encode_seconds_max": 3.0,
        "encode_seconds_min": 1.0,
        "encode_seconds_sum": 6.0,
        'micro_batch_size_count{device="cpu"}': 1,
        'micro_batch_size_max{device="cpu"}': 8,
        'micro_batch_size_min{device="cpu"}': 8,
        'micro_batch_size_sum{device="cpu"}': 8,
    }
    assert expected == recorder.snapshot()


def test_an_exporter_reads_typed_values() -> None:
    """
    Names and labels are apart, for whoever writes another format.
    """
    recorder = InMemoryRecorder()
    recorder.count("commits_total", result="ok")
    recorder.observe("search_seconds", 0.5)

    assert {Series("commits_total", (("result", "ok"),)): 1} == recorder.counters()
    assert {Series("search_seconds"): Summary(1, 0.5, 0.5, 0.5)} == recorder.summaries()


def test_a_label_cannot_break_out_of_its_quotes() -> None:
    """
    Quotes, backslashes and line breaks in a label's value are escaped as Prometheus does.
    """
    recorder = InMemoryRecorder()
    recorder.count("commits_total", result='a"b\\c\nd')

    assert list(recorder.snapshot()) == [r'commits_total{result="a\"b\\c\nd"}']


def test_what_was_read_does_not_change() -> None:
    """
    A snapshot is of its moment.
    """
    recorder = InMemoryRecorder()
    recorder.count("pauses_total")
    before = recorder.snapshot()
    recorder.count("pauses_total")

    assert before == {"pauses_total": 1}


def test_no_count_is_lost_between_threads() -> None:
    """
    Eight threads that count and observe at once leave the exact sums behind.
    """
    recorder = InMemoryRecorder()
    port: Recorder = recorder
    names: list[MetricName] = ["events_consumed_total", "pauses_total"]

    together = threading.Barrier(8)

    def work(thread: int) -> None:
        together.wait()
        for turn in range(5_000):
            port.count(names[turn % 2])
            port.observe("micro_batch_size", thread)

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # or the threads would rarely meet
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(interval_s)

    assert recorder.counters() == {Series(names[0]): 20_000, Series(names[1]): 20_000}
    assert recorder.summaries() == {Series("micro_batch_size"): Summary(40_000, 5_000 * 28, 0, 7)}
