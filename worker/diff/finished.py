"""
Whether the replays behind two sides have come to their ends: no promotion rests on the half of one.

How a topic's run is asked for is given from outside; a file's run is kept beside the file.
"""

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from worker.adapters.run_file import kept_state, state_path
from worker.diff.joining import SideName
from worker.diff.reading import SideSpec
from worker.errors import CannotStart
from worker.flow.replay_run import RunState

FindRun = Callable[[str], RunState | None]
"""What is kept of the run with this id, whose verdicts went to a topic; raises ``CannotStart``."""

_KNOWN = "or say --allow-unfinished where you know that it has"


@dataclass(frozen=True, slots=True)
class Doubt:
    """
    A replay that has not finished or, where not ``certain``, of which nobody can tell; and what to do.
    """

    found: str
    advice: str
    certain: bool


def doubts(
    sides: Mapping[SideName, SideSpec], replays: Mapping[SideName, AbstractSet[str]], find_run: FindRun
) -> Iterator[Doubt]:
    """
    Of every replay that either side has verdicts of, and that is not known to have finished.

    Raises ``CannotStart`` for a file beside which something else lies in the place of its run's state.
    """
    for side, spec in sides.items():
        where = f"{side.upper()} ({spec.text})"
        if spec.kind == "file":
            yield from _of_file(where, Path(spec.name), replays[side])
        else:
            for run_id in sorted(replays[side]):
                yield from _of_topic(where, run_id, find_run)


def _of_file(where: str, path: Path, run_ids: AbstractSet[str]) -> Iterator[Doubt]:
    kept = kept_state(path)
    if kept is not None:
        state, length_bytes = kept
        run_ids -= {state.plan.run_id}
        if not state.finished:
            yield _unfinished(where, state)
        elif path.stat().st_size < length_bytes:
            found = f"{where} has {path.stat().st_size} bytes, and its run had written {length_bytes}"
            yield Doubt(found, "verdicts are missing: restore the file, or replay again", certain=True)
    for run_id in sorted(run_ids):
        yield Doubt(
            f"nobody can tell whether run {run_id} of {where} has finished",
            f"its {state_path(path).name} does not lie beside it: put it there, {_KNOWN}",
            certain=False,
        )


def _of_topic(where: str, run_id: str, find_run: FindRun) -> Iterator[Doubt]:
    why = (
        "the brokers keep nothing of it. They drop a run's group after offsets.retention.minutes, and it is looked for "
        "under kafka.group_id"
    )
    try:
        state = find_run(run_id)
    except CannotStart as refusal:
        state, why = None, str(refusal)
    if state is None:
        found = f"nobody can tell whether run {run_id} of {where} has finished"
        yield Doubt(found, f"{why}. Replay again, name another run or mode, {_KNOWN}", certain=False)
    elif not state.finished:
        yield _unfinished(where, state)


def _unfinished(where: str, state: RunState) -> Doubt:
    left = sum(stretch.end - stretch.start for stretch in state.left().values())
    run_id = state.plan.run_id
    return Doubt(
        f"run {run_id} of {where} has not finished, {left} positions are left",
        f"go on with --run-id {run_id} first, or name another run; --allow-unfinished compares what is there",
        certain=True,
    )
