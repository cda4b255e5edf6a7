"""
What is known of the replays behind two sides, and what is said where nothing can be known.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.kafka_worlds import release
from worker.adapters.run_file import RunFile
from worker.diff.finished import Doubt, FindRun, doubts
from worker.diff.joining import SideName
from worker.diff.reading import SideSpec, parse_side
from worker.domain import Partition
from worker.errors import CannotStart
from worker.flow.replay_run import RunPlan, RunState, RunTotals, Stretch

PLAN = RunPlan("run-1", "uploads", "topic:x", "beginning", "end", {}, {0: Stretch(0, 9), 1: Stretch(3, 5)})
ZERO = Partition("uploads", 0)


def asked(b: str, replays: set[str], find_run: FindRun) -> list[Doubt]:
    """
    What is doubted when the live topic is A.
    """
    sides: Mapping[SideName, SideSpec] = {"a": parse_side("topic:live#mode=live"), "b": parse_side(b)}
    return list(doubts(sides, {"a": set(), "b": replays}, find_run))


def nobody(run_id: str) -> RunState | None:
    """
    Asked of what needs no broker.
    """
    raise AssertionError(run_id)


def replayed(path: Path, *, finished: bool = True) -> Path:
    """
    The file of a replay, with two of its verdicts.
    """
    run = RunFile(path)
    run.begin(PLAN)
    run.write([release("out", ZERO, number, b"{}") for number in range(2)], {ZERO: 2}, RunTotals(replayed=2))
    if finished:
        run.finish(RunTotals(replayed=2))
    run.close()
    return path


def test_a_finished_run_is_not_doubted(tmp_path: Path) -> None:
    """
    Neither a topic's nor a file's; what is of no replay is not even asked for.
    """
    finished = RunState(PLAN, {0: 9, 1: 5}, finished=True)

    assert [] == asked("topic:replays", {"run-1"}, lambda _run_id: finished)
    assert [] == asked("run:run-1", {"run-1"}, lambda _run_id: finished)
    assert [] == asked(str(replayed(tmp_path / "out#1.jsonl")), {"run-1"}, nobody)
    assert [] == asked("topic:shadows", set(), nobody)


def test_a_run_that_has_not_finished_is_named_with_what_is_left() -> None:
    """
    Of several runs in one topic, each by itself.
    """
    states = {"run-1": RunState(PLAN, {0: 6, 1: 3}), "whole": RunState(PLAN, {0: 9, 1: 5}, finished=True)}
    (doubt,) = asked("topic:replays", {"run-1", "whole"}, states.__getitem__)

    assert "run run-1 of B (topic:replays) has not finished, 5 positions are left" == doubt.found
    assert "--run-id run-1" in doubt.advice
    assert doubt.certain


def _refused(_run_id: str) -> RunState | None:
    text = "its plan is gone"
    raise CannotStart(text)


@pytest.mark.parametrize(
    ("find_run", "why"), [(lambda _run_id: None, "offsets.retention.minutes"), (_refused, "its plan is gone")]
)
def test_a_run_of_which_the_brokers_cannot_tell_is_doubted(find_run: Callable[[str], None], why: str) -> None:
    """
    With the reason, and with what to do.
    """
    (doubt,) = asked("run:run-1", {"run-1"}, find_run)

    assert "nobody can tell whether run run-1 of B (run:run-1) has finished" == doubt.found
    assert why in doubt.advice
    assert "--allow-unfinished" in doubt.advice
    assert not doubt.certain


def test_a_file_says_beside_it_whether_its_run_has_finished(tmp_path: Path) -> None:
    """
    One that has not is named, and one that is shorter than its run had written it.
    """
    half = replayed(tmp_path / "half.jsonl", finished=False)
    cut = replayed(tmp_path / "cut.jsonl")
    cut.write_bytes(cut.read_bytes()[:-1])
    (unfinished,) = asked(str(half), {"run-1"}, nobody)
    (shorter,) = asked(f"{cut}#mode=replay", {"run-1"}, nobody)

    assert f"run run-1 of B ({half}) has not finished, 9 positions are left" == unfinished.found
    assert f"B ({cut}#mode=replay) has 5 bytes, and its run had written 6" == shorter.found
    assert unfinished.certain
    assert shorter.certain


def test_a_file_without_the_state_of_its_runs_is_doubted(tmp_path: Path) -> None:
    """
    One that was copied alone, or into which another run was put as well; what is no state is refused.
    """
    lone, mixed, odd = (tmp_path / name for name in ("lone.jsonl", "mixed.jsonl", "odd.jsonl"))
    lone.write_text("{}\n")
    replayed(mixed)
    (tmp_path / "odd.jsonl.run.json").write_text("{")
    (copied,) = asked(str(lone), {"run-1"}, nobody)
    (added,) = asked(str(mixed), {"run-1", "run-2"}, nobody)

    assert "lone.jsonl.run.json does not lie beside it" in copied.advice
    assert "run run-2" in added.found
    assert not copied.certain
    with pytest.raises(CannotStart, match="holds no state of a replay run"):
        asked(str(odd), {"run-1"}, nobody)
