"""
``touchstone scan`` and the worker on Kafka are one pipeline: the same files, the same decisions.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.peers import assert_valid
from tests.real_images_run import RealRun
from worker.adapters.file_source import list_files

pytestmark = [pytest.mark.servers, pytest.mark.shared_data, pytest.mark.slow, pytest.mark.timeout(600)]

SCORE_TOLERANCE = 2e-3
"""
Companions in a micro-batch move features by 1e-7; that may flip the last bit of a component's float16, which moves a
cosine by up to 1e-4, and a vote at temperature 0.07 by ten times that.
"""


def decision(verdict: dict[str, Any]) -> dict[str, Any]:
    """
    What is decided, why, and of which bytes: whatever is no measured number.
    """
    outcome, error = verdict["outcome"], verdict["error"]
    return {
        "outcome": [outcome["status"], outcome["label"], outcome["action"]],
        "reasons": [reason["code"] for reason in outcome["reasons"]],
        "thresholds": verdict["thresholds"],
        "image": verdict["image"],
        "error": None if error is None else (error["code"], error["class"], error["stage"], error["detail"]),
        "versions": verdict["versions"],
    }


def numbers(verdict: dict[str, Any]) -> list[float]:
    """
    Score, margin and every component; none for a failed verdict.
    """
    outcome = verdict["outcome"]
    if verdict["error"] is not None:
        return []
    return [outcome["score"], outcome["margin"], *(component["value"] for component in verdict["scores"])]


def test_scan_answers_each_file_with_one_line_in_order(real_run: RealRun, shared_data: Path) -> None:
    """
    One verdict of the contract per file, in the order of the files, also for those that fail; the exit code says so.
    """
    files = list_files([shared_data / "odd", *(shared_data / path for path in real_run.sample)])
    for line in real_run.scanned:
        assert_valid("image.verdict.v1", line)

    assert [str(file) for file in files] == [line["content_id"] for line in real_run.scanned]
    assert {line["mode"] for line in real_run.scanned} == {"scan"}
    assert any(line["outcome"]["status"] == "failed" for line in real_run.scanned)
    assert real_run.scan_code == 1


def test_scan_decides_as_the_worker_does(real_run: RealRun, shared_data: Path) -> None:
    """
    Status, label, action, reasons, error and image facts are the same, file by file, as on the way through Kafka.

    Scores differ by no more than a micro-batch's companions may move them.
    """
    by_scan = real_run.by_scan(shared_data)
    by_kafka = {path: outcome.data for path, outcome in real_run.by_kafka.items()}
    differences = {
        path: (decision(verdict), decision(by_scan[path]))
        for path, verdict in by_kafka.items()
        if decision(verdict) != decision(by_scan[path])
    }

    assert by_kafka.keys() == by_scan.keys()
    assert differences == {}
    for path, verdict in by_kafka.items():
        assert numbers(verdict) == pytest.approx(numbers(by_scan[path]), abs=SCORE_TOLERANCE)
