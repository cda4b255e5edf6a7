"""
Lines of the guide that call other programs than ours: each is held by a rule of ``tests/guide_shell.py``.
"""

from pathlib import Path

import pytest

from tests.guide_lines import OTHERS, others
from tests.guide_shell import RULES, UNHELD, composed, exported, installed, rules_for


def test_no_line_of_the_guide_is_without_a_rule() -> None:
    """
    A line for another program fails here until something holds it; a rule that holds nothing is to be taken out.
    """
    assert () == UNHELD
    assert set() == {begin for begin in RULES if not any(line.startswith(begin) for line in OTHERS)}
    assert [] == rules_for("curl -O somewhere")


def test_other_programs_are_found_behind_prompts_and_docker_in_sentences() -> None:
    """
    Continued lines are joined and remarks left out; our own commands are found by ``typed``.
    """
    block = "```console\n$ make demo\n$ export A=1 \\\n  B=2   # both\n$ touchstone dev\n$ whatever\n```\n"

    assert ["export A=1 B=2", "whatever", "docker compose up"] == others(f"{block}or `docker compose up`, `pip x`\n")


@pytest.mark.parametrize("line", OTHERS)
def test_a_line_for_another_program_holds(line: str, tmp_path: Path) -> None:
    """
    As its rule says.
    """
    (rule,) = rules_for(line)

    rule(line, tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "docker compose -f docker/compos.yaml up",
        "docker compose --profile wach up",
        "docker compose --profiles watch up",
        "docker compose up --biuld",
        "docker compose up workers",
        "docker run touchstone",
    ],
)
def test_a_wrong_line_for_docker_is_noticed(line: str, tmp_path: Path) -> None:
    """
    A file, profile, option, service or command that is not there.
    """
    with pytest.raises(AssertionError):
        composed(line, tmp_path)


@pytest.mark.parametrize("line", ["pip install ncmn", "pip download --nodeps ncnn", "pip downlod ncnn"])
def test_a_wrong_line_for_pip_is_noticed(line: str, tmp_path: Path) -> None:
    """
    Another package, an option or a subcommand that pip does not have.
    """
    with pytest.raises(AssertionError):
        installed(line, tmp_path)


@pytest.mark.parametrize(
    "line", ["export BANK=$PWD/bank", "export BANK=$PWD/bnk WEIGHTS=$PWD/weights CHECKPOINT_SHA256=0"]
)
def test_a_wrong_export_is_noticed(line: str, tmp_path: Path) -> None:
    """
    Variables that compose demands and nobody exports, and folders that are elsewhere.
    """
    with pytest.raises(AssertionError):
        exported(line, tmp_path)
