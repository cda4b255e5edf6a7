"""
What a scrape of the metrics says, through Prometheus' own client parser.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
PATIENCE_S = 60.0


class Scrape:
    """
    The families and samples of one exposition.
    """

    def __init__(self, text: str, *, open_metrics: bool = False) -> None:
        parse = open_metrics_families if open_metrics else text_string_to_metric_families
        self.families = list(parse(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    @property
    def names(self) -> set[str]:
        """
        All names that a query may use: those of samples, and those of families without any sample yet.
        """
        promised: set[str] = set()
        for family in self.families:
            ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
            promised |= {family.name + end for end in ends}
        return promised | {sample.name for sample in self.samples}

    def value(self, name: str, **labels: str) -> float:
        """
        The one sample of this name that has these labels.
        """
        found = [one.value for one in self.samples if one.name == name and labels.items() <= one.labels.items()]
        assert len(found) == 1, f"{name} {labels}: found {len(found)} samples"
        value: float = found[0]
        return value

    def labels(self, name: str, label: str) -> set[str]:
        """
        The values of a label in all samples of a name.
        """
        return {one.labels[label] for one in self.samples if one.name == name}


def fetched(port: int, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """
    Status and body of an answer over real HTTP, whatever the status.
    """
    request = Request(f"http://127.0.0.1:{port}{path}", method=method, headers=dict(headers or {}))
    try:
        with urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310 - likewise
            return answer.status, answer.read().decode()
    except HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def scraped(port: int) -> Scrape:
    """
    The metrics, as a Prometheus of today asks for them.
    """
    status, text = fetched(port, "/metrics")
    assert status == 200, text
    return Scrape(text)


def checked(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """
    Status and object of a health endpoint.
    """
    status, text = fetched(port, path)
    found: dict[str, Any] = json.loads(text)
    return status, found
