"""
What queries of Prometheus name, in the dashboard and in the alert rules.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from tests.conftest import ROOT

DASHBOARD: Final = ROOT / "docker" / "grafana" / "touchstone.json"
ALERTS: Final = ROOT / "docker" / "prometheus" / "alerts.yml"

_NAME = re.compile(r"\btouchstone_[a-z0-9_]+")
_SELECTOR = re.compile(r"\b(touchstone_[a-z0-9_]+)\{([^}]*)\}")
_MATCHER = re.compile(r'([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_SCRAPED: Final = {"instance", "job"}
"""Labels that Prometheus adds to whatever it scrapes."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """
    A label that a query asks of a metric, and one value that it must have, or must not have.
    """

    metric: str
    label: str
    value: str


def dashboard() -> dict[str, Any]:
    """
    The dashboard.
    """
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """
    Its panels, rows left out.
    """
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    """
    The alert rules.
    """
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def dashboard_queries() -> list[str]:
    """
    Every query of the dashboard.
    """
    variables = [one["query"]["query"] for one in dashboard()["templating"]["list"] if one["type"] == "query"]
    notes = [note["expr"] for note in dashboard()["annotations"]["list"]]
    return [*(target["expr"] for panel in panels() for target in panel["targets"]), *variables, *notes]


def alert_queries() -> list[str]:
    """
    Every query of the alert rules.
    """
    return [rule["expr"] for rule in rules()]


def names_in(query: str) -> set[str]:
    """
    The metrics of ours that a query names.
    """
    return set(_NAME.findall(query))


def matchers_in(query: str) -> Iterator[Matcher]:
    """
    What a query asks of the labels of our metrics; what the reader of a dashboard chooses is not known, and left out.
    """
    for metric, inside in _SELECTOR.findall(query):
        for label, how, asked in _MATCHER.findall(inside):
            if label not in _SCRAPED and not asked.startswith("$"):
                for value in asked.split("|") if "~" in how else [asked]:
                    yield Matcher(metric, label, value)


def labels_by(query: str) -> set[str]:
    """
    The labels that a query groups by, but for those that Prometheus adds.
    """
    inside = re.findall(r"\bby\s*\(([^)]*)\)", query)
    return {label.strip() for group in inside for label in group.split(",")} - _SCRAPED
