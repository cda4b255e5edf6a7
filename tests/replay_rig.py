"""
Replays as an operator runs them, beside the workers of a rig: as a process that can be killed, or to their end.

The workers, topics and their readers are in ``worker_rig.py``.
"""

import contextlib
import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from tests.worker_rig import WorkerProcess, WorkerRig
from worker.cli.replay import replay
from worker.errors import TouchstoneError

Verdict = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """
    How a replay ended: its exit code, the object that it printed (empty where it printed none), and its log.
    """

    code: int
    report: dict[str, Any]
    text: str


def replay_process(
    rig: WorkerRig, out: str | Path, *words: str, sets: Sequence[str] = (), only: Sequence[str] | None = None
) -> WorkerProcess:
    """
    A replay of the rig's uploads that was just started; ``sets`` win over the rig's own settings, or over ``only``.
    """
    return WorkerProcess(replay_words(rig, out, *words, sets=sets, only=only), rig.folder)


def replay_words(
    rig: WorkerRig, out: str | Path, *words: str, sets: Sequence[str] = (), only: Sequence[str] | None = None
) -> list[str]:
    """
    The command line.
    """
    command = ["replay", "--topic", rig.settings.kafka.topics.uploads, "--out", str(out), "--json", "--verbose", *words]
    for one in (*(rig.sets if only is None else only), *sets):
        command += ["--set", one]
    return command


def replayed(
    rig: WorkerRig, out: str | Path, *words: str, sets: Sequence[str] = (), only: Sequence[str] | None = None
) -> Ended:
    """
    A replay that was run to its end, in this process: the command as it stands, without loading torch once more.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with contextlib.chdir(rig.folder):
        result = CliRunner().invoke(
            replay, replay_words(rig, out, *words, sets=sets, only=only)[1:], standalone_mode=False
        )
    assert {number: signal.getsignal(number) for number in before} == before
    refusal = result.exception
    if isinstance(refusal, TouchstoneError):
        return Ended(refusal.exit_code, {}, str(refusal))
    assert refusal is None, result.output
    return Ended(result.return_value, json.loads(result.stdout), result.stderr)


def lines_of(path: Path) -> list[Verdict]:
    """
    The verdicts of a file.
    """
    return [json.loads(line) for line in path.read_text().splitlines()]


def decision_of(verdict: Verdict) -> dict[str, Any]:
    """
    All of a verdict that must be equal at equal versions: what was decided and by what, and nothing of when and how.
    """
    names = ("decision_id", "content_id", "outcome", "thresholds", "scores", "missing_heads", "calibration")
    return {name: verdict[name] for name in (*names, "attribution", "evidence", "image", "versions")}


def position_of(verdict: Verdict) -> tuple[int, int]:
    """
    Partition and offset of the upload that a verdict answers.
    """
    return verdict["input"]["partition"], verdict["input"]["offset"]
