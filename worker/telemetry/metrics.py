"""
Counts and measurements kept in memory, for the last line of a run and for tests.

An exporter is another ``Recorder`` beside it; nothing here knows of any.
"""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from worker.metric_names import MetricName
from worker.ports import Recorder

_Given = tuple[MetricName | tuple[str, str], ...]


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


class _Counter:
    __slots__ = ("amount",)

    def __init__(self) -> None:
        self.amount: float = 0


class _Observed:
    __slots__ = ("count", "largest", "smallest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total: float = 0
        self.smallest = math.inf
        self.largest = -math.inf

    def take(self, value: float) -> None:
        self.count += 1
        self.total += value
        if value < self.smallest:  # noqa: PLR1730 - calling min is most of what an observation would take
            self.smallest = value
        if value > self.largest:  # noqa: PLR1730 - likewise
            self.largest = value


class InMemoryRecorder:
    """
    The ``Recorder`` that remembers. Any thread may call any method; each holds a lock for one dictionary access.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[Series, _Counter] = {}
        self._observed: dict[Series, _Observed] = {}
        # By labels as they are given, in their order: to sort them each time costs more than all the rest.
        self._counters_given: dict[_Given, _Counter] = {}
        self._observed_given: dict[_Given, _Observed] = {}

    def count(self, name: MetricName, amount: float = 1, **labels: str) -> None:
        """
        Add to a counter.
        """
        given = (name, *labels.items())
        with self._lock:
            found = self._counters_given.get(given)
            if found is None:
                found = self._counters.setdefault(Series.of(name, labels), _Counter())
                self._counters_given[given] = found
            found.amount += amount

    def observe(self, name: MetricName, value: float, **labels: str) -> None:
        """
        Record one measured value.
        """
        given = (name, *labels.items())
        with self._lock:
            found = self._observed_given.get(given)
            if found is None:
                found = self._observed.setdefault(Series.of(name, labels), _Observed())
                self._observed_given[given] = found
            found.take(value)

    def counters(self) -> Mapping[Series, float]:
        """
        Every counter as it stands now.
        """
        with self._lock:
            return self._amounts()

    def summaries(self) -> Mapping[Series, Summary]:
        """
        Every summary as it stands now.
        """
        with self._lock:
            return self._summaries()

    def _amounts(self) -> dict[Series, float]:
        return {series: one.amount for series, one in self._counters.items()}

    def _summaries(self) -> dict[Series, Summary]:
        return {
            series: Summary(one.count, one.total, one.smallest, one.largest) for series, one in self._observed.items()
        }

    def snapshot(self) -> Mapping[str, float]:
        """
        Everything as it stood at one moment, by name: a summary as its ``_count``, ``_sum``, ``_min`` and ``_max``.
        """
        with self._lock:
            counters, summaries = self._amounts(), self._summaries()
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
