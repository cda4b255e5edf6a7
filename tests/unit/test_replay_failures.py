"""
What a replay could not judge: added up by code, in the place of a log line for each.
"""

import io
from collections.abc import Iterator

import pytest
import structlog

from schemas.errors import ErrorCode
from tests.builders import a_failure_ruling, an_upload, handled, versions
from tests.recorded_log import lines_of, log_undone
from worker.errors import UploadFailed
from worker.outcomes import VerdictIssued
from worker.replay.failures import FLOW_LOGGER, Failures, summed_up
from worker.settings.tree import LogSettings
from worker.stages.report import verdict_of_failure
from worker.telemetry.log import configure_logging, log_upload_failed


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """
    Where the log goes, as JSON, from warnings on.
    """
    found = io.StringIO()
    with log_undone():
        configure_logging(LogSettings(format="json", level="warning"), stream=found)
        yield found


def a_failed(code: ErrorCode) -> VerdictIssued:
    """
    The verdict of an upload that ended so.
    """
    return verdict_of_failure(
        an_upload(),
        UploadFailed(code, "none"),
        ruling=a_failure_ruling(),
        handled=handled(facts=None, fetch_ms=None),
        versions=versions(),
    )


def test_the_most_frequent_comes_first() -> None:
    """
    Among equals, by name; without any there is nothing to tell.
    """
    failures = Failures()
    nothing = str(failures)
    for code in ("FETCH_TIMEOUT", "EVENT_INVALID", "EMBEDDING_UNKNOWN", "EMBEDDING_UNKNOWN"):
        failures.count(code)

    assert "" == nothing
    assert "EMBEDDING_UNKNOWN=2 EVENT_INVALID=1 FETCH_TIMEOUT=1" == str(failures)
    assert {"EMBEDDING_UNKNOWN": 2, "EVENT_INVALID": 1, "FETCH_TIMEOUT": 1} == failures.by_code


def test_no_line_of_a_single_upload_while_they_are_summed_up(stream: io.StringIO) -> None:
    """
    Other warnings of the flow, and failures that are a fault of ours, are told; and afterwards all are told again.
    """
    unknown, ours = a_failed(ErrorCode.EMBEDDING_UNKNOWN), a_failed(ErrorCode.INTERNAL)
    with summed_up():
        log_upload_failed(unknown)
        log_upload_failed(ours)
        structlog.get_logger(FLOW_LOGGER).warning("source.slow")
    log_upload_failed(unknown)

    assert [("upload.failed", "INTERNAL"), ("source.slow", None), ("upload.failed", "EMBEDDING_UNKNOWN")] == [
        (line["event"], line.get("code")) for line in lines_of(stream)
    ]
