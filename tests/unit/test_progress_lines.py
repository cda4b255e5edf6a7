"""
Rates, the time left, and the lines that tell them.
"""

import re
import sys
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

import worker.cli.replay as command
from tests.fake_outcomes import ManualClock
from worker.cli.progress_lines import LINE_EVERY_S, Estimate, ProgressLines
from worker.flow.replay_run import RunTotals
from worker.replay.failures import Failures
from worker.replay.order import ReplayOrder, ReplayReport, ReplayWatch
from worker.settings.tree import Settings


def test_the_rate_is_of_this_process_and_the_rest_at_that_speed() -> None:
    """
    What was done before it began, of a run that was resumed, is no speed.
    """
    estimate = Estimate(4_000, 100.0)
    fresh = (estimate.per_s, estimate.eta_s(5_000))
    estimate.note(4_200, 110.0)

    assert (None, None) == fresh
    assert (20.0, 40.0) == (estimate.per_s, estimate.eta_s(5_000))


def test_the_rate_is_that_of_the_last_minute() -> None:
    """
    After an hour of ten in a second, a minute of one in a second is enough to tell when it ends.
    """
    estimate = Estimate(0, 0.0)
    for second in range(1, 3_601):
        estimate.note(second * 10, float(second))
    for second in range(1, 91):
        estimate.note(36_000 + second, 3_600.0 + second)

    assert 1.0 == estimate.per_s
    assert 10.0 == estimate.eta_s(36_100)


def test_what_moves_once_in_minutes_has_a_rate_too() -> None:
    """
    A replay at --rate 0.01 takes an upload in 100 seconds.
    """
    estimate = Estimate(0, 0.0)
    for step in range(1, 8):
        estimate.note(step, step * 100.0)

    assert 0.01 == pytest.approx(estimate.per_s)
    assert 300.0 == pytest.approx(estimate.eta_s(10))


def test_what_stands_still_has_no_end() -> None:
    """
    Nothing moved for more than a minute.
    """
    estimate = Estimate(0, 0.0)
    estimate.note(5, 5.0)
    estimate.note(5, 50.0)
    estimate.note(5, 120.0)

    assert (0.0, None) == (estimate.per_s, estimate.eta_s(10))


def test_a_line_at_most_every_ten_seconds_for_each_kind_of_work() -> None:
    """
    With what is done, of how many, how many in a second, and the seconds that are left.
    """
    clock, lines = ManualClock(), list[str]()
    tell = ProgressLines(lines.append, clock)
    for second in range(26):
        clock.now_s = float(second)
        tell("replaying", 500 + second * 20, 2_000)
        if second % 5 == 0:
            tell("reading past verdicts", 7, 7)

    assert LINE_EVERY_S == 10.0
    assert [
        "replaying: done=700 of=2000 per_s=20.000 eta_s=65",
        "reading past verdicts: done=7 of=7 per_s=0.000 eta_s=unknown",
        "replaying: done=900 of=2000 per_s=20.000 eta_s=55",
        "reading past verdicts: done=7 of=7 per_s=0.000 eta_s=unknown",
    ] == lines


@pytest.mark.parametrize("machine", [True, False])
def test_a_replay_without_a_terminal_tells_its_progress_in_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, machine: bool
) -> None:
    """
    On stderr, with --json and without; stdout has the result alone.
    """
    clock = ManualClock()

    def replayed(_settings: Settings, order: ReplayOrder, watch: ReplayWatch) -> ReplayReport:
        for done in (0, 300):
            watch.progress("replaying", done, 1_000)
            watch.failures.count("EMBEDDING_UNKNOWN")
            clock.now_s += 15
        names: dict[str, Any] = {"run_id": "r", "topic": order.topic, "out": str(order.destination)}
        return ReplayReport(
            **names,
            since="beginning",
            until="end",
            resumed=False,
            finished=True,
            totals=RunTotals(300),
            per_s=20.0,
            positions_left=0,
            failures_by_code=watch.failures.by_code,
            empty_range=False,
        )

    # In the place of the module that imports torch.
    composition = ModuleType("worker.replay.run")
    monkeypatch.setattr(composition, "replay_uploads", replayed, raising=False)
    monkeypatch.setitem(sys.modules, "worker.replay.run", composition)
    monkeypatch.setattr(command, "SystemClock", lambda: clock)
    words = ["--topic", "uploads", "--out", str(tmp_path / "out.jsonl"), *(["--json"] if machine else [])]
    ran = CliRunner().invoke(command.replay, words, standalone_mode=False)

    assert (None, 0) == (ran.exception, ran.return_value)
    assert "replaying: done=300 of=1000 per_s=20.000 eta_s=35 EMBEDDING_UNKNOWN=1" == click.unstyle(ran.stderr).strip()
    assert "replaying" not in ran.stdout
    assert re.search(r"EMBEDDING_UNKNOWN\W+(this time\W+)?2", ran.stdout)
    assert machine == ran.stdout.startswith('{"run_id": "r"')


def test_bars_tell_the_rate_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    On a terminal, and also of what goes slowly.
    """
    clock, drawn, failures = ManualClock(), StringIO(), Failures()
    monkeypatch.setattr(command, "SystemClock", lambda: clock)
    failures.count("EMBEDDING_UNKNOWN")
    with command.progress_with_rate(Console(file=drawn, force_terminal=True, width=160), failures) as report:
        for work, step in (("replaying", 200), ("waiting", 1)):
            report(work, 0, step * 5)
            clock.now_s += 10
            report(work, step, step * 5)
    shown = click.unstyle(drawn.getvalue())

    for wanted in ("20/s", "0.1/s", "0:00:40 left", "EMBEDDING_UNKNOWN=1"):
        assert wanted in shown
