"""
The metrics as Prometheus takes them: a ``Recorder`` with a registry of its own, and gauges that are read when scraped.

The one home of ``prometheus_client``. What is measured and what it is called, is in ``catalogue.py``; where gauges come
from, is the affair of whoever hands ``read_gauges`` over.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from worker.metric_names import GaugeName, MetricName
from worker.telemetry.catalogue import GAUGES, MEASURED, OTHER, PREFIX, Label
from worker.telemetry.catalogue import Metric as MetricOf

Labels = tuple[tuple[str, str], ...]

AT_ZERO: Final = 60
"""A counter with at most so many sets of labels is told from the start."""


@dataclass(frozen=True, slots=True)
class Reading:
    """
    One gauge as it stands at this moment.
    """

    name: GaugeName
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


class PrometheusRecorder:
    """
    Implements ``worker.ports.Recorder``. Any thread may call any method; none waits for a scrape.

    Labels stay within what the catalogue allows, whatever is counted: any other value is told as ``other``, and a label
    that the catalogue does not know is left out.
    """

    def __init__(self) -> None:
        # Each counter would be told twice, once with the moment at which it was made.
        disable_created_metrics()  # type: ignore[no-untyped-call] # its author left it untyped
        self._registry = CollectorRegistry()
        self._bounds = _Bounds()
        self._families = {name: self._family(name) for name in MEASURED}
        self._children: dict[tuple[MetricName, Labels], Counter | Histogram] = {}
        for name, metric in MEASURED.items():
            self._begin_at_zero(name, metric)

    def _begin_at_zero(self, name: MetricName, metric: MetricOf) -> None:
        """
        Tell of a counter before it counts, where its labels are few: a rate over what is not there is no rate at all.
        """
        if metric.kind != "counter" or not metric.labels or not all(label.values for label in metric.labels):
            return
        if math.prod(len(label.values) for label in metric.labels) <= AT_ZERO:
            for values in product(*(sorted(label.values) for label in metric.labels)):
                self.count(name, 0, **dict(zip((label.name for label in metric.labels), values, strict=True)))

    def _family(self, name: MetricName) -> Counter | Histogram:
        metric = MEASURED[name]
        labels = [label.name for label in metric.labels]
        if metric.kind == "counter":
            return Counter(name, metric.help, labels, namespace=PREFIX, registry=self._registry)
        return Histogram(name, metric.help, labels, namespace=PREFIX, registry=self._registry, buckets=metric.buckets)

    def count(self, name: MetricName, amount: float = 1, **labels: str) -> None:
        """
        Add to a counter.
        """
        child = self._child(name, labels)
        if isinstance(child, Counter):
            child.inc(amount)

    def observe(self, name: MetricName, value: float, **labels: str) -> None:
        """
        Record one measured value.
        """
        child = self._child(name, labels)
        if isinstance(child, Histogram):
            child.observe(value)

    def _child(self, name: MetricName, labels: Mapping[str, str]) -> Counter | Histogram:
        given = (name, tuple(labels.items()))
        child = self._children.get(given)
        if child is None:
            family = self._families[name]
            bound = {label.name: self._bounds.within(name, label, labels) for label in MEASURED[name].labels}
            child = family.labels(**bound) if bound else family
            # Of values without a bound nothing is kept, or this dictionary would grow with them.
            if all(bound.get(label) == value for label, value in labels.items()):
                self._children[given] = child
        return child

    def read_gauges(self, read: Callable[[], Iterable[Reading]]) -> None:
        """
        Ask ``read`` for the gauges at every scrape, on the scrape's own thread; once for a recorder.
        """
        self._registry.register(_Gauges(read, self._bounds))

    def exposition(self, accept: str | None) -> tuple[bytes, str]:
        """
        All metrics in the format that an Accept header asks for, and its content type.
        """
        encode, content_type = choose_encoder(accept or "")
        return encode(self._registry), content_type


class _Gauges(Collector):
    def __init__(self, read: Callable[[], Iterable[Reading]], bounds: "_Bounds") -> None:
        self._read = read
        self._bounds = bounds

    def describe(self) -> Iterable[Metric]:
        """
        Nothing, so that registering it does not read the gauges.
        """
        return ()

    def collect(self) -> Iterator[Metric]:
        """
        One family for each gauge that has readings.
        """
        families: dict[GaugeName, GaugeMetricFamily] = {}
        for reading in self._read():
            gauge = GAUGES[reading.name]
            names = [label.name for label in gauge.labels]
            if reading.name not in families:
                families[reading.name] = GaugeMetricFamily(f"{PREFIX}_{reading.name}", gauge.help, labels=names)
            # A gauge stands for one thing: two of them under "other" would be told twice, which no scraper takes. They
            # are bounded by what the worker has, which is what was assigned to it.
            families[reading.name].add_metric([reading.labels.get(name, "") for name in names], reading.value)
        yield from families.values()


class _Bounds:
    """
    Which values of labels without a list of their own are told; the first ones that came.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[tuple[MetricName, str], set[str]] = {}

    def within(self, metric: MetricName, label: Label, labels: Mapping[str, str]) -> str:
        """
        The label's value, or ``other``.
        """
        value = labels.get(label.name)
        if value is None:
            return OTHER
        if label.values:
            return value if value in label.values else OTHER
        with self._lock:
            seen = self._seen.setdefault((metric, label.name), set())
            if value not in seen and len(seen) >= label.limit:
                return OTHER
            seen.add(value)
        return value
