"""
What the guide tells people to type: every command has a way to be run, and has the options that are given.

They are run in ``tests/integration/test_guide.py``.
"""

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from tests.guide_lines import SPOKEN, TYPED, spoken, typed
from tests.guide_story import ADDED, CHAPTERS, DRY, ELSEWHERE, FILLED_IN, LEFT_TO_WORLDS, LINES
from worker.cli import touchstone

RUN = {*LINES, *ELSEWHERE, *DRY}


def resolved(words: list[str]) -> tuple[click.Command, list[str]]:
    """
    The command that these words name, and the words that are left.
    """
    command: click.Command = touchstone
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"{words[0]!r} is no command"
        command, words = found, words[1:]
    return command, words


def within(few: list[str], many: list[str]) -> bool:
    """
    Whether these words stand in the others, in their order.
    """
    rest: Iterator[str] = iter(many)
    return all(word in rest for word in few)


def test_lines_are_found_as_people_read_them() -> None:
    """
    In blocks, continued on the next line, without remarks; in comments of settings; within sentences.
    """
    block = "```console\n$ touchstone fit bank \\\n    --seed 1   # all heads\n$ make demo\n$ pip install x\n```\n"
    comment = "#     touchstone run --set a=1\n# and `touchstone dev\n# now` starts\n#touchstone no\n"

    assert ["touchstone fit bank --seed 1", "make demo"] == typed(block)
    assert ["touchstone run --set a=1"] == typed(comment, settings=True)
    assert ["touchstone dev now"] == spoken(comment, settings=True)
    assert ["touchstone diff a#mode=live b"] == typed("$ touchstone diff a#mode=live b")
    assert ["make x y"] == spoken("`make x y`, `touchstone`, `remake it` and again `make x\ny`")


def test_every_line_of_the_guide_has_a_way_to_be_run() -> None:
    """
    A new line must be added to ``tests/guide_story.py``; a line that is gone must be taken out there.
    """
    assert len(TYPED) > 30
    assert set() == set(TYPED) - RUN
    assert set() == set(LINES) - {*TYPED, *SPOKEN, ADDED}
    assert set() == set(ELSEWHERE) - {*TYPED, *SPOKEN}


@pytest.mark.parametrize("line", SPOKEN)
def test_a_command_in_a_sentence_is_run_too(line: str) -> None:
    """
    As it stands, or with more words between.
    """
    assert any(within(line.split(), whole.split()) for whole in RUN)


def test_every_placeholder_is_used_and_none_is_left() -> None:
    """
    What is filled in stands in some line; words in capitals that nobody fills in would be taken as they stand.
    """
    filled_in = {*FILLED_IN, *LEFT_TO_WORLDS}
    capitals = {word for line in LINES for word in line.split() if re.fullmatch(r"[A-Z_|]{2,}", word)}

    assert set() == capitals - filled_in
    assert set() == {word for word in filled_in if not any(word in line for line in LINES)}


@pytest.mark.parametrize("line", sorted({line for line in TYPED if line.startswith("touchstone ")}))
def test_a_command_of_the_guide_is_one_that_there_is(line: str) -> None:
    """
    Its name, and every option that is given: told in a moment, also where no server is.
    """
    command, words = resolved(shlex.split(line)[1:])
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in words if word.startswith("--")}

    assert given <= known


def test_a_chapter_goes_on_from_one_without_servers() -> None:
    """
    Which leaves a bank.
    """
    before = {chapter.goes_on_from for chapter in CHAPTERS.values()} - {None}

    assert {"banks"} == before
    assert not CHAPTERS["banks"].on_servers
