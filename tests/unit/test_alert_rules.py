"""
The alert rules, the scrape configuration and the dashboard as files: well formed, and the alerts fire when they should.

What the alerts do over which series, is in alerts_test.yml and alerts_day_test.yml beside them; promtool runs these.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from schemas.errors import ErrorClass, ErrorCode, Stage, class_of, stage_of
from tests.conftest import ROOT
from tests.promql import ALERTS, alert_queries, dashboard, labels_by, matchers_in, names_in, panels, rules
from worker.operation.stores import open_stores
from worker.settings.operations import EmbeddingsSettings, HttpSettings
from worker.settings.tree import Settings
from worker.telemetry.catalogue import MEASURED
from worker.telemetry.prometheus import PrometheusRecorder

FOLDER: Final = ROOT / "docker" / "prometheus"
TESTS: Final = ("alerts_test.yml", "alerts_day_test.yml")
TOOLS: Final = ROOT / ".tools"
NOT_HERE: Final = TOOLS / "no-promtool"
_LABEL: Final = re.compile(r"\$labels\.([a-z_]+)")
_FIRES: Final = re.compile(r'alertname="([A-Za-z]+)"')


def promtool_here() -> Path:
    """
    The promtool that `make promtool` left, or one on PATH. Without any the test is skipped; in CI it fails.

    It is skipped in CI too, where `make promtool` has left the reason why it cannot be had on that machine.
    """
    found = shutil.which("promtool", path=os.pathsep.join([str(TOOLS), os.environ.get("PATH", "")]))
    if found is not None:
        return Path(found)
    why = NOT_HERE.read_text().strip() if NOT_HERE.exists() else "run `make promtool`"
    if os.environ.get("CI") and not NOT_HERE.exists():
        pytest.fail(f"no promtool: {why}")
    pytest.skip(f"no promtool: {why}; only the structure of the rules was checked")


@pytest.fixture(scope="module")
def promtool() -> Path:
    """
    See ``promtool_here``.
    """
    return promtool_here()


def said_by(promtool: Path, *arguments: str, folder: Path = FOLDER, status: int = 0) -> str:
    """
    What promtool says, which must end with this exit code.
    """
    ran = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False, cwd=folder)
    said = ran.stdout + ran.stderr
    assert status == ran.returncode, said
    return said


def alert_tests() -> list[dict[str, Any]]:
    """
    Every test of the alerts, in all files.
    """
    return [one for name in TESTS for one in yaml.safe_load((FOLDER / name).read_text())["tests"]]


def fired_in(test: dict[str, Any]) -> set[str]:
    """
    The alerts that a test expects to fire at some moment.
    """
    samples = [sample for asked in test["promql_expr_test"] for sample in asked["exp_samples"]]
    return {name for sample in samples for name in _FIRES.findall(sample["labels"])}


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


def test_texts_name_labels_that_the_alert_has() -> None:
    """
    A label that the query does not group by would be empty in the message.
    """
    missing = {
        rule["alert"]: set(_LABEL.findall(text)) - labels_by(rule["expr"])
        for rule in rules()
        for text in rule["annotations"].values()
        if not set(_LABEL.findall(text)) <= labels_by(rule["expr"])
    }

    assert {} == missing


def test_every_alert_of_the_issue_is_there() -> None:
    """
    What is old, fails, drifts, is stale, missing, down, withheld, left alone or killed, and what Redis should not hold.
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
        "touchstone_forgotten_total",
        "touchstone_dead_letters_withheld",
        "touchstone_fetch_breaker_total",
        "touchstone_decoders_ended_total",
        "touchstone_bank_refused",
    }
    assert any("up{" in query for query in alert_queries())


def codes_asked_of(alert: str) -> set[str]:
    """
    The codes whose dead letters an alert counts.
    """
    (query,) = [rule["expr"] for rule in rules() if rule["alert"] == alert]
    return {one.value for one in matchers_in(query) if one.label == "code"}


def test_codes_of_the_alerts_are_those_of_their_kind() -> None:
    """
    A new code of class internal, or of a record that is no upload event, is not left out.
    """
    internal = {code for code in ErrorCode if class_of(code) is ErrorClass.INTERNAL}
    unreadable = {code for code in ErrorCode if stage_of(code) is Stage.PARSE}

    assert internal == codes_asked_of("TouchstoneFailuresInternal")
    assert unreadable == codes_asked_of("TouchstoneRecordsUnreadable")
    assert unreadable == codes_asked_of("TouchstoneVerdictsMissing")


def test_counters_of_the_alerts_are_told_before_they_count() -> None:
    """
    A sum over what is not there is nothing, and never fires; an increase does not see the first one of a new series.
    """
    exposed = PrometheusRecorder().exposition(None)[0].decode()
    counters = {name for query in alert_queries() for name in names_in(query) if name.endswith("_total")}

    assert len(counters) >= 10
    assert [] == [name for name in counters if not re.search(rf"^{name}({{.*}})? 0\.0$", exposed, re.MULTILINE)]


def test_every_alert_is_tested_firing_and_silent() -> None:
    """
    Of each alert there is a test in which it fires, and one over series like those in which nothing does.
    """
    alerts = {rule["alert"] for rule in rules()}
    tests = alert_tests()
    firing = {test["name"].split()[0] for test in tests if {test["name"].split()[0]} == fired_in(test)}
    silent = {test["name"].split()[0] for test in tests if not fired_in(test)} - {"no"}

    assert alerts == firing
    assert alerts == silent


def test_tests_ask_for_metrics_of_the_rules() -> None:
    """
    No test can pass because its series have another name than those that the rules ask for.
    """
    asked = set().union(*map(names_in, alert_queries())) | {"up"}
    given = {series["series"].split("{")[0] for test in alert_tests() for series in test["input_series"]}

    assert asked == given


def test_every_store_that_forgets_is_told_by_its_name(tmp_path: Path) -> None:
    """
    So that the alert on forgetting says which store fails, and not "other".
    """
    settings = Settings(embeddings=EmbeddingsSettings(keep="file", path=tmp_path / "kept.sqlite"))
    told = {label.name: label.values for label in MEASURED["forgotten_total"].labels}
    with open_stores(settings) as stores:
        names = set(stores.forgetters)

    assert {"archive", "redis"} == names
    assert names | {"process", "index", "event"} == told["store"]


def test_promtool_accepts_rules_and_configuration(promtool: Path) -> None:
    """
    As Prometheus itself would read them.
    """
    assert f"{len(rules())} rules found" in said_by(promtool, "check", "rules", ALERTS.name)
    assert f"{len(rules())} rules found" in said_by(promtool, "check", "config", "prometheus.yml")


def test_alerts_fire_when_they_should(promtool: Path) -> None:
    """
    Over their series, and no other alert with them; nor any over a day of a healthy fleet.
    """
    said = said_by(promtool, "test", "rules", *TESTS)

    assert len(TESTS) == said.count("SUCCESS")


def test_a_rule_that_does_not_fire_is_noticed(promtool: Path, tmp_path: Path) -> None:
    """
    With rules that are never true, promtool finds each alert missing: the tests do look.
    """
    document = yaml.safe_load(ALERTS.read_text())
    for rule in document["groups"][0]["rules"]:
        rule["expr"] = f"({rule['expr']}) unless on () vector(0)"
    (tmp_path / ALERTS.name).write_text(yaml.safe_dump(document))
    (tmp_path / TESTS[0]).write_text((FOLDER / TESTS[0]).read_text())
    said = said_by(promtool, "test", "rules", TESTS[0], folder=tmp_path, status=1)
    in_it = {name for test in yaml.safe_load((FOLDER / TESTS[0]).read_text())["tests"] for name in fired_in(test)}

    assert len(in_it) > 10
    assert in_it == set(_FIRES.findall(said))


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


def test_dashboard_is_of_one_group_where_one_is_chosen() -> None:
    """
    The workers to choose from are those of the chosen consumer groups, and every panel shows only chosen workers.
    """
    variables = {one["name"]: one for one in dashboard()["templating"]["list"]}
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]

    assert ["datasource", "group", "instance"] == list(variables)
    assert 'group=~"$group"' in variables["instance"]["query"]["query"]
    # With a value of its own for all of them, "All" would be the workers of every group.
    assert "allValue" not in variables["instance"]
    assert [] == [query for query in queries if query.count("touchstone_") != query.count('instance=~"$instance"')]
