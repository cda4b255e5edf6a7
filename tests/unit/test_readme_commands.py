"""
What the README and the model card tell people to type: every command and option is there, and is run by some test.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from worker.cli import touchstone

ROOT = Path(__file__).parents[2]
GUIDES = (ROOT / "README.md", ROOT / "worker" / "shipped" / "starter" / "MODEL_CARD.md")
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if path.name != Path(__file__).name)


def typed() -> Iterator[str]:
    """
    Every line of a console block that begins with ``$ touchstone``, with what it goes on to.
    """
    for guide in GUIDES:
        joined = guide.read_text(encoding="utf-8").replace("\\\n", " ")
        yield from re.findall(r"^\$ touchstone (.+)$", joined, flags=re.MULTILINE)


COMMANDS = sorted(set(typed()))


def resolved(words: list[str]) -> tuple[click.Command, list[str], list[str]]:
    """
    The command that these words name, its path, and the words that are left.
    """
    command: click.Command = touchstone
    path: list[str] = []
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"`touchstone {' '.join([*path, words[0]])}` is no command"
        command, path, words = found, [*path, words[0]], words[1:]
    return command, path, words


def test_there_are_commands_to_check() -> None:
    """
    A rule over no lines is not a rule.
    """
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_guide_is_one_that_there_is(line: str) -> None:
    """
    Its name, and every option that is given.
    """
    command, _, words = resolved(shlex.split(line, comments=True))
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in words if word.startswith("--")}

    assert given <= known


@pytest.mark.parametrize("path", sorted({tuple(resolved(shlex.split(line, comments=True))[1]) for line in COMMANDS}))
def test_a_command_of_the_guide_is_run_by_a_test(path: tuple[str, ...]) -> None:
    """
    Its last word stands in a test as an argument, alone or behind the words before it.
    """
    asked = rf"""["'](?:{" ".join(path[:-1])} ?)?{re.escape(path[-1])}["' ]"""

    assert re.search(asked, TESTS), f"no test runs `touchstone {' '.join(path)}`"
