"""
How the command line ends when a command breaks: what is an interruption, and what only looks like one.
"""

import io
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.command_line import command_line
from tests.conftest import ROOT
from worker.cli import touchstone
from worker.errors import EXIT_CRASHED, EXIT_OK

INTERRUPTED = 130


def ends_with(monkeypatch: pytest.MonkeyPatch, fault: BaseException) -> None:
    """
    From here on the command ``schemas`` ends so.
    """

    @click.command("schemas")
    def broken() -> None:
        raise fault

    monkeypatch.setattr(touchstone, "get_command", lambda *_: broken)


def test_a_file_that_ends_too_early_is_a_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Nobody interrupted anything: the traceback says what was read.
    """
    ends_with(monkeypatch, EOFError("marshal data too short"))
    ended = command_line(monkeypatch, capsys, "schemas")()

    assert EXIT_CRASHED == ended.code
    assert "Traceback" in ended.err
    assert "EOFError: marshal data too short" in ended.err
    assert "interrupted" not in ended.err


def test_a_connection_that_breaks_is_a_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Whoever reads what is printed has not left.
    """
    ends_with(monkeypatch, BrokenPipeError("a server hung up"))
    ended = command_line(monkeypatch, capsys, "schemas")()

    assert EXIT_CRASHED == ended.code
    assert "BrokenPipeError: a server hung up" in ended.err


@pytest.mark.parametrize("printed", ["x", "x" * 1_000_000])
def test_a_reader_who_has_left_is_no_crash(printed: str) -> None:
    """
    As ``head`` does, before or after all is written: the command ends well, and says nothing.
    """
    program = (
        "import click, worker.cli as cli\n"
        f"broken = lambda: print({printed[0]!r} * {len(printed)})\n"
        "cli.touchstone.get_command = lambda *_: click.command('schemas')(broken)\n"
        "cli.main()"
    )
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as nowhere:
        ended = subprocess.run(
            [sys.executable, "-c", program, "schemas"], cwd=ROOT, stdout=nowhere, stderr=subprocess.PIPE, check=False
        )

    assert (EXIT_OK, b"") == (ended.returncode, ended.stderr)


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), click.exceptions.Abort()])
def test_an_interruption_is_told_as_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: BaseException
) -> None:
    """
    Ctrl-C, and a prompt of click's that nobody answered.
    """
    ends_with(monkeypatch, fault)
    ended = command_line(monkeypatch, capsys, "schemas")()

    assert INTERRUPTED == ended.code
    assert ended.err.endswith("touchstone: interrupted\n")
    assert "Traceback" not in ended.err


def test_a_prompt_without_an_answer_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The end of what a person types is none of a file.
    """

    @click.command("schemas")
    def asking() -> None:
        click.confirm("Go on?")

    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(touchstone, "get_command", lambda *_: asking)
    ended = command_line(monkeypatch, capsys, "schemas")()

    assert INTERRUPTED == ended.code
    assert "Traceback" not in ended.err


def test_byte_code_that_was_cut_off_is_a_crash(tmp_path: Path) -> None:
    """
    As a full disk leaves it behind: the command that would import it says so.
    """
    command = [sys.executable, "-c", "from worker.cli import main; main()", "schemas", "--help"]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(tmp_path), "PATH": "/usr/bin:/bin"}
    whole = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    (byte_code,) = tmp_path.glob(f"{str(ROOT)[1:]}/worker/cli/schemas.*.pyc")
    byte_code.write_bytes(byte_code.read_bytes()[:40])
    cut_off = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert EXIT_OK == whole.returncode, whole.stderr
    assert EXIT_CRASHED == cut_off.returncode, cut_off.stderr
    assert "EOFError" in cut_off.stderr
    assert "interrupted" not in cut_off.stderr
