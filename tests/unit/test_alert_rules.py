"""
The alert rules, the scrape configuration and the dashboard as files: well formed, and the alerts fire when they should.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.conftest import ROOT
from tests.promql import ALERTS, alert_queries, dashboard, names_in, panels, rules
from worker.settings.operations import HttpSettings

FOLDER: Final = ROOT / "docker" / "prometheus"
RISING: Final = "0+{}x120"
"""Each minute so much more, for two hours."""

CASES: Final[dict[str, tuple[dict[str, str], dict[str, str]]]] = {
    # Each alert with series under which it fires, and series under which it does not.
    "TouchstoneWorkerDown": ({'up{job="touchstone"}': "0x120"}, {'up{job="touchstone"}': "1x120"}),
    "TouchstoneNobodyReady": (
        {'touchstone_ready{instance="a"}': "0x120"},
        {'touchstone_ready{instance="a"}': "0x120", 'touchstone_ready{instance="b"}': "1x120"},
    ),
    "TouchstoneUncommittedOld": (
        {'touchstone_oldest_uncommitted_seconds{topic="t",partition="0"}': "0+60x120"},
        {'touchstone_oldest_uncommitted_seconds{topic="t",partition="0"}': "59x120"},
    ),
    "TouchstoneLagGrows": (
        {'touchstone_consumer_lag{topic="t",partition="0"}': "2000+100x120"},
        {'touchstone_consumer_lag{topic="t",partition="0"}': "90000-100x120"},
    ),
    "TouchstoneFailuresHigh": (
        {
            'touchstone_verdicts_total{status="failed"}': RISING.format(10),
            'touchstone_verdicts_total{status="decided"}': RISING.format(90),
        },
        {
            'touchstone_verdicts_total{status="failed"}': RISING.format(1),
            'touchstone_verdicts_total{status="decided"}': RISING.format(99),
        },
    ),
    "TouchstoneDeadLettersHigh": (
        {
            'touchstone_dead_letters_total{code="EVENT_INVALID"}': RISING.format(2),
            "touchstone_events_consumed_total": RISING.format(100),
        },
        {
            'touchstone_dead_letters_total{code="EVENT_INVALID"}': "0x120",
            "touchstone_events_consumed_total": RISING.format(100),
        },
    ),
    "TouchstoneVerdictsMissing": (
        {
            "touchstone_events_consumed_total": RISING.format(100),
            'touchstone_verdicts_total{status="decided"}': RISING.format(50),
            'touchstone_dead_letters_total{code="EVENT_INVALID"}': "0x120",
            "touchstone_uploads_forgotten_total": "0x120",
        },
        {
            "touchstone_events_consumed_total": RISING.format(100),
            'touchstone_verdicts_total{status="decided"}': RISING.format(59),
            'touchstone_dead_letters_total{code="EVENT_INVALID"}': RISING.format(1),
            "touchstone_uploads_forgotten_total": RISING.format(40),
        },
    ),
    "TouchstoneCommitsRefused": (
        {
            'touchstone_commits_total{result="refused"}': RISING.format(6),
            'touchstone_commits_total{result="ok"}': RISING.format(4),
        },
        {
            'touchstone_commits_total{result="refused"}': "0x120",
            'touchstone_commits_total{result="ok"}': RISING.format(4),
        },
    ),
    "TouchstoneScoresDrift": (
        {'touchstone_drift_ks{of="score"}': "0.4x120"},
        {'touchstone_drift_ks{of="score"}': "0.3x120", 'touchstone_drift_ks{of="distance"}': "0.9x120"},
    ),
    "TouchstoneDistancesDrift": (
        {'touchstone_drift_ks{of="distance"}': "0.3x120"},
        {'touchstone_drift_ks{of="distance"}': "0.1x120"},
    ),
    "TouchstoneBankStale": (
        {"touchstone_bank_age_seconds": "8000000x120"},
        {"touchstone_bank_age_seconds": "1000000x120"},
    ),
    "TouchstoneBanksDiffer": (
        {
            'touchstone_bank_info{instance="a",manifest="1"}': "1x120",
            'touchstone_bank_info{instance="b",manifest="2"}': "1x120",
        },
        {
            'touchstone_bank_info{instance="a",manifest="1"}': "1x120",
            'touchstone_bank_info{instance="b",manifest="1"}': "1x120",
        },
    ),
    "TouchstoneBankRefused": (
        {'touchstone_bank_swaps_total{result="refused"}': "0x100 1x20"},
        {
            'touchstone_bank_swaps_total{result="refused"}': "0x120",
            'touchstone_bank_swaps_total{result="swapped"}': "0x100 1x20",
        },
    ),
}
CACHE: Final = "touchstone_cache_requests_total"


def promtool(*arguments: str) -> str:
    """
    What promtool says, when it finds nothing wrong; the test is skipped where there is no promtool.
    """
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool on PATH (Debian: the package prometheus); only the structure of the rules was checked")
    ran = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, cwd=FOLDER)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_rules_are_whole() -> None:
    """
    Each alert has a name of its own, says how bad it is, what is wrong and what to do, and asks for a metric.
    """
    found = rules()
    names = [rule["alert"] for rule in found]

    assert len(names) == len(set(names))
    for rule in found:
        assert rule["alert"].startswith("Touchstone")
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "action"}
        assert all(text.strip().endswith(".") for text in rule["annotations"].values())
        assert names_in(rule["expr"]) or "up{" in rule["expr"]
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_every_alert_of_the_issue_is_there() -> None:
    """
    Old uncommitted uploads, failures, dead letters, drift, cache hits, a stale bank, missing verdicts, a worker down.
    """
    named = set().union(*map(names_in, alert_queries()))

    assert named >= {
        "touchstone_oldest_uncommitted_seconds",
        "touchstone_verdicts_total",
        "touchstone_dead_letters_total",
        "touchstone_drift_ks",
        "touchstone_cache_requests_total",
        "touchstone_bank_age_seconds",
        "touchstone_events_consumed_total",
    }
    assert any("up{" in query for query in alert_queries())


def test_promtool_accepts_rules_and_configuration() -> None:
    """
    As Prometheus itself would read them.
    """
    said = promtool("check", "config", "prometheus.yml")

    assert f"{len(rules())} rules found" in said


def fires(alert: str, series: dict[str, str], *, expected: bool, at: str = "2h") -> dict[str, Any]:
    """
    One case of ``promtool test rules``; labels and annotations of the alert are not compared.
    """
    count = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'
    return {
        "name": f"{alert}: {expected}",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": f"({count}) > bool 0", "eval_time": at, "exp_samples": [{"labels": "{}", "value": int(expected)}]}
        ],
    }


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """
    Over two hours of made-up series each alert fires, and over others like them it does not.
    """
    cases = [
        fires(alert, series, expected=expected)
        for alert, (bad, good) in CASES.items()
        for series, expected in ((bad, True), (good, False))
    ]
    # A day of half hits, and then an hour and more without.
    half = {f'{CACHE}{{result="hit"}}': "0+50x1800 90000x120", f'{CACHE}{{result="miss"}}': "0+50x1800 90000+100x120"}
    steady = {f'{CACHE}{{result="hit"}}': "0+50x1920", f'{CACHE}{{result="miss"}}': "0+50x1920"}
    cases.append(fires("TouchstoneCacheHitsCollapsed", half, expected=True, at="32h"))
    cases.append(fires("TouchstoneCacheHitsCollapsed", steady, expected=False, at="32h"))
    tests = tmp_path / "tests.yml"
    tests.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "5m", "tests": cases}))

    assert {case["name"].split(":")[0] for case in cases} == {rule["alert"] for rule in rules()}
    promtool("test", "rules", str(tests))


def test_prometheus_scrapes_where_the_worker_listens() -> None:
    """
    The target of compose is the worker's default port, under the job that the alerts ask for.
    """
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    job = config["scrape_configs"][0]

    assert job["job_name"] == "touchstone"
    assert job["static_configs"] == [{"targets": [f"worker:{HttpSettings().port}"]}]
    assert [ALERTS.name] == config["rule_files"]


def test_dashboard_is_whole() -> None:
    """
    Panels have ids and places of their own, a title, a unit and queries on the chosen data source.
    """
    found = dashboard()
    shown = panels()
    ids = [panel["id"] for panel in found["panels"]]
    places = [(one["gridPos"]["x"], one["gridPos"]["y"]) for one in shown]

    assert len(shown) > 20
    assert len(ids) == len(set(ids))
    assert len(places) == len(set(places))
    assert {"Flow", "Latency", "Outcomes", "Encoder and cache", "Errors", "Bank and drift"} <= {
        panel["title"] for panel in found["panels"] if panel["type"] == "row"
    }
    for panel in shown:
        assert panel["title"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert [target["datasource"]["uid"] for target in panel["targets"]] == ["${datasource}"] * len(panel["targets"])
        assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"])
