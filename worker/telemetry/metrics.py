"""
Counts and measurements kept in memory, for the last line of a run and for tests.

An exporter is another ``Recorder`` beside it; nothing here knows of any.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from worker.metric_names import MetricName
from worker.ports import Recorder


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """
    One metric with one set of labels, sorted by name.
    """

    name: MetricName
    labels: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, name: MetricName, labels: Mapping[str, str]) -> Self:
        """
        The series of a metric with these labels, in whatever order they come.
        """
        return cls(name, tuple(sorted(labels.items())))

    def key(self, suffix: str = "") -> str:
        """
        As Prometheus writes it: ``verdicts_total{status="decided"}``.
        """
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in self.labels)
        return f"{self.name}{suffix}{{{labels}}}" if labels else f"{self.name}{suffix}"


@dataclass(frozen=True, slots=True)
class Summary:
    """
    What the observed values of a series amount to.
    """

    count: int
    sum: float
    min: float
    max: float

    def including(self, value: float) -> "Summary":
        """
        The summary with one more value.
        """
        return Summary(self.count + 1, self.sum + value, min(self.min, value), max(self.max, value))


class InMemoryRecorder:
    """
    The ``Recorder`` that remembers. Any thread may call any method; each holds a lock for one dictionary access.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[Series, float] = {}
        self._summaries: dict[Series, Summary] = {}

    def count(self, name: MetricName, amount: float = 1, **labels: str) -> None:
        """
        Add to a counter.
        """
        series = Series.of(name, labels)
        with self._lock:
            self._counters[series] = self._counters.get(series, 0) + amount

    def observe(self, name: MetricName, value: float, **labels: str) -> None:
        """
        Record one measured value.
        """
        series = Series.of(name, labels)
        with self._lock:
            so_far = self._summaries.get(series)
            self._summaries[series] = Summary(1, value, value, value) if so_far is None else so_far.including(value)

    def counters(self) -> Mapping[Series, float]:
        """
        Every counter as it stands now.
        """
        with self._lock:
            return dict(self._counters)

    def summaries(self) -> Mapping[Series, Summary]:
        """
        Every summary as it stands now.
        """
        with self._lock:
            return dict(self._summaries)

    def snapshot(self) -> Mapping[str, float]:
        """
        Everything as it stood at one moment, by name: a summary as its ``_count``, ``_sum``, ``_min`` and ``_max``.
        """
        with self._lock:
            counters, summaries = dict(self._counters), dict(self._summaries)
        flat = {series.key(): value for series, value in counters.items()}
        for series, summary in summaries.items():
            flat[series.key("_count")] = summary.count
            flat[series.key("_sum")] = summary.sum
            flat[series.key("_min")] = summary.min
            flat[series.key("_max")] = summary.max
        return dict(sorted(flat.items()))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class EveryRecorder:
    """
    The ``Recorder`` that tells each of several.
    """

    def __init__(self, *recorders: Recorder) -> None:
        self._recorders = recorders

    def count(self, name: MetricName, amount: float = 1, **labels: str) -> None:
        """
        Add to a counter of each.
        """
        for recorder in self._recorders:
            recorder.count(name, amount, **labels)

    def observe(self, name: MetricName, value: float, **labels: str) -> None:
        """
        Record one measured value in each.
        """
        for recorder in self._recorders:
            recorder.observe(name, value, **labels)
