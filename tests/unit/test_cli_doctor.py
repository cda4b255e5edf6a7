"""
``touchstone doctor``: what it prints, and its exit codes.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import command_line
from worker.doctor.finding import Check, Finding, failed, ok, skipped, warning

Doctor = Callable[..., tuple[int, str]]

GOOD = ok("all is well")
WORRYING = warning("it is slow", "make it faster")
BROKEN = failed("it is gone\x1b[2J", "bring it back")


def checks_of(*findings: Finding) -> list[Check]:
    """
    Checks that find this.
    """
    return [Check(f"check-{number}", partial(_same, one), "do this") for number, one in enumerate(findings)]


def _same(finding: Finding) -> Finding:
    return finding


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Doctor:
    """
    Runs the command with these findings.
    """
    monkeypatch.chdir(tmp_path)
    touchstone = command_line(monkeypatch, capsys, "doctor")

    def run(findings: Sequence[Finding], *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("worker.doctor.servers.server_checks", lambda *_: checks_of(*findings))
        monkeypatch.setattr("worker.doctor.model.model_checks", lambda *_: [])
        monkeypatch.setattr("worker.doctor.machine.machine_checks", lambda *_: [])
        ran = touchstone(*arguments)
        return ran.code, ran.out

    return run


@pytest.mark.parametrize(
    ("findings", "code"),
    [([GOOD], 0), ([GOOD, WORRYING, skipped("not asked for")], 0), ([GOOD, BROKEN, GOOD], 1), ([], 0)],
)
def test_the_exit_code_is_1_when_something_failed(doctor: Doctor, findings: list[Finding], code: int) -> None:
    """
    Warnings and skipped checks do not count as failures, in either form of output.
    """
    assert code == doctor(findings)[0]
    assert code == doctor(findings, "--json")[0]


def test_one_line_per_check(doctor: Doctor) -> None:
    """
    Status, name, finding and what to do stand in one line; codes that move a cursor do not get through.
    """
    _, out = doctor([GOOD, WORRYING, BROKEN, skipped("not asked for")])

    assert [
        "ok      check-0     all is well",
        "warning check-1     it is slow. To do: make it faster",
        "failed  check-2     it is gone [2J. To do: bring it back",
        "skipped check-3     not asked for",
        "1 ok, 1 warning, 1 failed, 1 skipped",
    ] == out.splitlines()


def test_json_is_one_object(doctor: Doctor) -> None:
    """
    Whether all is well, how many of each status, and every check in order.
    """
    _, out = doctor([GOOD, BROKEN], "--json")
    document: dict[str, Any] = json.loads(out)

    assert document["ok"] is False
    assert {"ok": 1, "warning": 0, "failed": 1, "skipped": 0} == document["counts"]
    assert [
        {"check": "check-0", "status": "ok", "text": "all is well", "advice": None},
        {"check": "check-1", "status": "failed", "text": "it is gone\x1b[2J", "advice": "bring it back"},
    ] == document["checks"]
