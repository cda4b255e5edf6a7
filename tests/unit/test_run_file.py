"""
A run's file: whole after each write, cut to what was finished on resuming, and nobody else's.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kafka_worlds import release
from worker.adapters.run_file import RunFile, state_path
from worker.domain import Partition
from worker.errors import CannotStart, PublishFailed
from worker.flow.replay_run import RunPlan, RunTotals, Stretch
from worker.outcomes import Release

PLAN = RunPlan("run-1", "uploads", "file:x", "beginning", "end", {"bank": "a"}, {0: Stretch(0, 9), 1: Stretch(3, 5)})
ZERO = Partition("uploads", 0)


def lines(*numbers: int) -> list[Release]:
    """
    Verdicts that are told apart by a number.
    """
    return [release("out", ZERO, number, f'{{"n":{number}}}'.encode()) for number in numbers]


def test_what_was_written_is_found_again(tmp_path: Path) -> None:
    """
    Plan, positions and totals come back as they were, and the lines are in the file.
    """
    path = tmp_path / "out.jsonl"
    run = RunFile(path)

    assert run.find(None) is None
    run.begin(PLAN)
    run.write(lines(0, 1), {ZERO: 2}, RunTotals(replayed=2))
    run.close()
    state = RunFile(path).find("run-1")

    assert state is not None
    assert (state.plan, state.positions, state.totals, state.finished) == (PLAN, {0: 2}, RunTotals(replayed=2), False)
    assert path.read_text() == '{"n":0}\n{"n":1}\n'


def test_a_run_that_came_and_went_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    """
    Looked for before the model was loaded, begun after: another replay has finished in between.
    """
    path = tmp_path / "out.jsonl"
    late, quick = RunFile(path), RunFile(path)
    found = late.find(None)
    quick.begin(PLAN)
    quick.write(lines(0, 1), {ZERO: 2}, RunTotals(replayed=2))
    quick.finish(RunTotals(replayed=2))
    quick.close()

    assert found is None
    with pytest.raises(CannotStart, match="a moment ago"):
        late.begin(PLAN)
    assert '{"n":0}\n{"n":1}\n' == path.read_text()


@pytest.mark.parametrize("torn", [b"", b'{"n":2}\n', b'{"n":2}\n{"n"', b"\n"])
def test_what_was_not_finished_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    """
    Lines that a killed process appended without keeping their positions are gone: they are written again.
    """
    path = tmp_path / "out.jsonl"
    killed = RunFile(path)
    killed.begin(PLAN)
    killed.write(lines(0, 1), {ZERO: 2}, RunTotals(replayed=2))
    killed.close()
    with path.open("ab") as file:
        file.write(torn)
    run = RunFile(path)
    found = run.find("run-1")
    assert found is not None
    state = run.resume(found)
    run.write(lines(2), {ZERO: 3}, state.totals + RunTotals(replayed=1))
    run.finish(RunTotals(replayed=3))
    run.close()
    last = RunFile(path).find("run-1")

    assert state.positions == {0: 2}
    assert path.read_text() == '{"n":0}\n{"n":1}\n{"n":2}\n'
    assert last is not None
    assert last.finished


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """
    A file without a state, with a damaged one or with another run's is refused, and says what to do.
    """
    path = tmp_path / "out.jsonl"
    path.write_text("mine\n")
    with pytest.raises(CannotStart, match="Nothing is overwritten"):
        RunFile(path).find(None)
    state_path(path).write_text("{")
    with pytest.raises(CannotStart, match="damaged"):
        RunFile(path).find(None)
    path.write_text("")
    state_path(path).unlink()
    run = RunFile(path)
    run.begin(PLAN)
    run.close()

    with pytest.raises(CannotStart, match="goes on with --run-id run-1"):
        RunFile(path).find(None)
    with pytest.raises(CannotStart, match="goes on with --run-id run-1"):
        RunFile(path).find("run-2")


def test_a_state_of_other_fields_is_refused(tmp_path: Path) -> None:
    """
    JSON that is no state says so, with the file's name.
    """
    path = tmp_path / "out.jsonl"
    path.touch()
    state_path(path).write_text(json.dumps({"length_bytes": 0, "state": {"plan": {}}}))

    with pytest.raises(CannotStart, match=r"out\.jsonl\.run\.json holds no state"):
        RunFile(path).find("run-1")


def test_verdicts_that_vanished_are_told(tmp_path: Path) -> None:
    """
    A file shorter than its run had written is not carried on.
    """
    path = tmp_path / "out.jsonl"
    run = RunFile(path)
    run.begin(PLAN)
    run.write(lines(0, 1), {ZERO: 2}, RunTotals(replayed=2))
    run.close()
    path.write_bytes(path.read_bytes()[:5])
    again = RunFile(path)
    found = again.find("run-1")
    assert found is not None

    with pytest.raises(CannotStart, match="has 5 bytes, its run had written 16"):
        again.resume(found)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """
    While one writes, another that would take the run over is refused.
    """
    path = tmp_path / "out.jsonl"
    run = RunFile(path)
    state = run.begin(PLAN)

    with pytest.raises(CannotStart, match="being written by another replay"):
        RunFile(path).resume(state)
    run.close()
    assert RunFile(path).resume(state).plan == PLAN


def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What cannot be written ends the run, which can be resumed.
    """
    run = RunFile(tmp_path / "out.jsonl")
    run.begin(replace(PLAN, run_id="run-7"))

    def full(_number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)

    with pytest.raises(PublishFailed, match=r"No space left on device\. Make room and go on with --run-id run-7"):
        run.write(lines(0), {ZERO: 1}, RunTotals(replayed=1))
