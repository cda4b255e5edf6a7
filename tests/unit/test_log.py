"""
How the log is set up: one renderer for us and for every library, and nothing in it that must not be said.
"""

import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
import structlog

from tests.recorded_log import lines_of, log_undone
from worker import __version__
from worker.domain import Partition
from worker.outcomes import Message, Release
from worker.settings.tree import LogSettings
from worker.telemetry.log import configure_logging


class Terminal(io.StringIO):
    """
    A stream that says it is a terminal.
    """

    def isatty(self) -> bool:
        """
        It does.
        """
        return True


def a_release() -> Release:
    """
    A value of ours that is no plain value, with something of a user in it.
    """
    return Release(Partition("uploads", 1), 1, Message("verdicts", b"key", b"USERDATA", (), 0))


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """
    What a test does to the process's log is undone.
    """
    with log_undone():
        yield


@pytest.fixture
def stream() -> io.StringIO:
    """
    A log in JSON, and where it goes.
    """
    stream = io.StringIO()
    configure_logging(LogSettings(format="json", level="debug"), stream=stream)
    return stream


def test_a_line_for_machines_opens_with_what_every_line_has(stream: io.StringIO) -> None:
    """
    One JSON object per line: event, ts (RFC 3339, UTC), level, service, version, and then what was said.
    """
    structlog.get_logger("worker.flow").info("partitions.assigned", count=3)
    (line,) = lines_of(stream)
    ts = datetime.fromisoformat(line.pop("ts"))

    expected = {
        "event": "partitions.assigned",
        "level": "info",
        "service": "touchstone",
        "version": __version__,
        "count": 3,
    }
    assert expected == line
    assert stream.getvalue().startswith('{"event": "partitions.assigned", "ts": "')
    assert abs(ts - datetime.now(UTC)) < timedelta(minutes=1)
    assert ts.utcoffset() == timedelta(0)


def test_the_service_has_the_name_that_was_configured() -> None:
    """
    Two workers with names of their own can be told apart in one place.
    """
    stream = io.StringIO()
    configure_logging(LogSettings(format="json"), stream=stream, service="avatars")
    structlog.get_logger("worker").info("worker.started")

    assert lines_of(stream)[0]["service"] == "avatars"


@pytest.mark.parametrize(
    ("form", "stream", "is_json"),
    [
        ("auto", io.StringIO(), True),
        ("auto", Terminal(), False),
        ("console", io.StringIO(), False),
        ("json", Terminal(), True),
    ],
)
def test_auto_asks_the_stream(form: Literal["auto", "console", "json"], stream: io.StringIO, *, is_json: bool) -> None:
    """
    A terminal gets lines for people, a pipe gets JSON, and who names a form gets it.
    """
    configure_logging(LogSettings(format=form), stream=stream)
    structlog.get_logger("worker").info("worker.started")

    assert stream.getvalue().startswith("{") == is_json
    assert "worker.started" in stream.getvalue()


def test_libraries_are_heard_from_warning_upwards(stream: io.StringIO) -> None:
    """
    What Kafka's client says goes through the same renderer; its chatter goes nowhere, even if it is turned on.
    """
    kafka = logging.getLogger("kafka.client")
    kafka.setLevel(logging.DEBUG)
    kafka.info("chatter")
    kafka.warning("lost %s", "https://broker.example/?token=USERDATA")
    logging.getLogger("botocore").debug("chatter")
    (line,) = lines_of(stream)

    assert (line["event"], line["level"], line["logger"]) == ("lost https://broker.example/", "warning", "kafka.client")
    assert line["service"] == "touchstone"


def test_warnings_become_lines() -> None:
    """
    A warning of Python does not break the JSON on stderr.
    """
    stream = io.StringIO()
    with warnings.catch_warnings():  # pytest's own catcher stands aside
        warnings.simplefilter("always")
        configure_logging(LogSettings(format="json"), stream=stream)
        warnings.warn("QuickGELU mismatch", stacklevel=1)
        logging.captureWarnings(capture=False)
    (line,) = lines_of(stream)

    assert "QuickGELU mismatch" in line["event"]
    assert line["level"] == "warning"


def test_our_level_is_the_configured_one() -> None:
    """
    ``level`` decides what we say, and an error-only log silences the warnings of libraries too.
    """
    stream = io.StringIO()
    configure_logging(LogSettings(format="json", level="error"), stream=stream)
    structlog.get_logger("worker.flow").warning("pause.began")
    logging.getLogger("kafka.client").warning("lost")
    structlog.get_logger("worker.flow").error("thread.died")

    assert [line["event"] for line in lines_of(stream)] == ["thread.died"]


def test_configuring_again_does_not_double_the_lines(stream: io.StringIO) -> None:
    """
    The last call holds, for loggers that were made before it too.
    """
    log = structlog.get_logger("worker.flow")
    log.info("first")
    second = io.StringIO()
    configure_logging(LogSettings(format="json"), stream=second)
    log.info("second")

    assert [line["event"] for line in lines_of(stream)] == ["first"]
    assert [line["event"] for line in lines_of(second)] == ["second"]


def test_without_a_stream_the_log_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """
    Standard output stays free for data.
    """
    configure_logging(LogSettings(format="json"))
    structlog.get_logger("worker").info("worker.started")
    captured = capsys.readouterr()

    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "worker.started"


def test_stderr_is_looked_up_when_a_line_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who replaces ``sys.stderr`` after the log was set up gets the lines.
    """
    configure_logging(LogSettings(format="json"))
    replaced = io.StringIO()
    monkeypatch.setattr(sys, "stderr", replaced)
    structlog.get_logger("worker").info("worker.started")

    assert len(lines_of(replaced)) == 1


@pytest.mark.parametrize("form", ["console", "json"])
def test_nothing_that_must_not_be_said_is_said(form: Literal["console", "json"]) -> None:
    """
    Whatever a careless line holds: no bytes, no query, no userinfo, no local variables of a traceback, no forged line.
    """
    stream = io.StringIO()
    configure_logging(LogSettings(format=form), stream=stream)
    log = structlog.get_logger("worker.flow")
    picture = b"USERDATA"
    try:
        int("https://cdn.example/a.jpg?sig=USERDATA")
    except ValueError as fault:
        log.exception("fault", data=picture, nested={"urls": ["s3://u:USERDATA@b/k"]}, fault=fault, release=a_release())
        logging.getLogger("kafka").exception("GET https://cdn.example/a.jpg?sig=USERDATA")
    log.info("name", name="x\nworker.stopped \x1b[2J", url="https://cdn.example/a.jpg#USERDATA")
    said = stream.getvalue()

    assert "USERDATA" not in said
    assert "<8 bytes>" in said
    assert "<Release>" in said
    assert "Traceback (most recent call last)" in said
    assert "\x1b[2J" not in said
    assert not any(line.startswith("worker.stopped") for line in said.splitlines())
