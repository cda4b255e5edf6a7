"""
The command ``touchstone``: one file per command, and one place where an error becomes a message and an exit code.

Exit codes: 0 done; 1 done, and something was found (a failed image, a drift, a difference); 2 the command line or the
configuration is wrong; 3 something that is needed is missing or does not fit; 4 it broke while running; 130 and 143
stopped by a second SIGINT or SIGTERM before the drain was over.
"""

import contextlib
import importlib
import os
import select
import sys
import traceback

import click

from worker import __version__
from worker.errors import EXIT_CRASHED, EXIT_OK, TouchstoneError
from worker.flow.crew import crew_threads

COMMANDS = {
    "run": "the worker: upload events in, verdicts out",
    "demo": "the main job on real servers, in about a minute",
    "scan": "judge files: the same pipeline, no servers",
    "fetch": "fetch one image under the worker's rules: its facts, or why it fails",
    "explain": "draw where one picture looks generated, for reviewers",
    "bank": "build, extend, inspect and verify banks of references; publish and activate them",
    "fit": "train the heads of a bank, weigh and calibrate them",
    "evaluate": "measure heads and judgement on pictures that they were not fitted on",
    "replay": "judge past uploads again, to a topic or a file of their own",
    "diff": "which decisions differ between two sets of verdicts; bounds make it a gate",
    "dlq": "list, show and redrive dead letters",
    "feedback": "collect what people said of verdicts, for review",
    "forget": "remove what was kept of a content's images",
    "topics": "plan and apply the Kafka topics",
    "doctor": "check servers, topics, weights, bank and this machine; say what to do",
    "schemas": "export the contract as JSON Schema and AsyncAPI",
    "config": "show the effective configuration and where it came from",
    "stress": "send uploads at a rate; check that each ends once, in order, and how soon",
    "bench": "measure this machine: uploads per second, stages, latency, beside the naive loop",
    "dev": "a real Kafka and a real Redis in the foreground",
}


class Broken(Exception):
    """
    A command broke with what click would take for Ctrl-C or for a reader who has left, and end without a word.
    """


class LazyGroup(click.Group):
    """
    A group whose commands are imported when they are called: ``--help`` does not wait for torch.
    """

    def invoke(self, ctx: click.Context) -> object:
        """
        Run the command. What click would misread comes out as `Broken`; its own prompts tell it nothing of theirs.
        """
        try:
            return super().invoke(ctx)
        except (EOFError, BrokenPipeError) as fault:
            raise Broken from fault

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """
        All commands, in the order in which one meets them.
        """
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """
        The command of ``worker/cli/<name>.py``.
        """
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"worker.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - likewise
        """
        The list in ``--help``, without importing anything.
        """
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup)
@click.version_option(__version__, prog_name="touchstone")
def touchstone() -> None:
    """
    Tells a platform which uploaded images are AI-generated, and why.
    """


def main() -> None:
    """
    Run the command line; every error ends as one message and its own exit code.
    """
    before = crew_threads()
    code = _run()
    if crew_threads() - before:
        # One that was left behind inside torch would abort the process while Python winds up (exit code 134).
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run() -> int:
    try:
        code = touchstone.main(standalone_mode=False)
        sys.stdout.flush()
    except TouchstoneError as error:
        click.echo(f"touchstone: {_printable(str(error))}", err=True)
        return error.exit_code
    except click.exceptions.Abort:
        click.echo("touchstone: interrupted", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Exception as fault:  # noqa: BLE001 - told in full; Python's own exit code for it, 1, means something else here
        return _crashed(fault.__cause__ if isinstance(fault, Broken) else fault)
    return code if isinstance(code, int) else EXIT_OK


def _crashed(fault: BaseException | None) -> int:
    if isinstance(fault, BrokenPipeError) and _nobody_reads():
        # What is left to be written would be tried again while Python winds up.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    traceback.print_exception(fault)
    return EXIT_CRASHED


def _nobody_reads() -> bool:
    """
    Whether the reader of what is printed has left, as ``head`` does: another pipe or connection may have broken.
    """
    try:
        printed = sys.stdout.fileno()
    except (OSError, ValueError):
        return False  # not printed to a file, as within a test
    asked = select.poll()
    asked.register(printed, 0)
    return any(found & (select.POLLERR | select.POLLHUP) for _, found in asked.poll(0))


def _printable(text: str) -> str:
    # A message may name a file, and a file's name may hold codes that move a terminal's cursor.
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)
