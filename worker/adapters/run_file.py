"""
A replay run whose verdicts go to a file, one JSON object per line, with its state in a small file beside it.

Each write appends, syncs, and then replaces the state file; what lies behind the recorded length was not finished and
is cut off on resuming. So each verdict is there once, whenever the process is killed.
"""

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

from worker.domain import Partition
from worker.errors import CannotStart, PublishFailed
from worker.flow.replay_run import STATES, RunPlan, RunState, RunTotals, state_from_json
from worker.outcomes import Release

STATE_SUFFIX: Final = ".run.json"


def state_path(path: Path) -> Path:
    """
    Where the state of the run with this output lies.
    """
    return path.with_name(path.name + STATE_SUFFIX)


def kept_state(path: Path) -> tuple[RunState, int] | None:
    """
    The state of the run with this output, and how many bytes it has written; None where there is none beside it.

    Raises ``CannotStart`` for what cannot be read or is no state.
    """
    beside = state_path(path)
    try:
        text = beside.read_text()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotStart(f"{beside} cannot be read: {error.strerror}") from error
    try:
        document = json.loads(text)
        length_bytes = int(document["length_bytes"])
        state = state_from_json(json.dumps(document["state"]), where=str(beside))
    except (ValueError, KeyError, TypeError):
        raise CannotStart(f"{beside} holds no state of a replay run; it was damaged. Replay to another --out") from None
    return state, length_bytes


class RunFile:
    """
    Implements ``worker.flow.replay_run.RunOutput``. One process at a time: the file is locked while it is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state_path = state_path(path)
        self._file: BinaryIO | None = None
        self._state: RunState | None = None
        self._length_bytes = 0

    def find(self, run_id: str | None) -> RunState | None:
        """
        The state beside the file. Raises ``CannotStart`` for a file of something else or of another run.
        """
        kept = kept_state(self._path)
        if kept is None:
            if self._path.exists() and self._path.stat().st_size > 0:
                raise CannotStart(
                    f"{self._path} exists, and no {self._state_path.name} says of which run it is. Nothing is "
                    "overwritten: name another --out, or move the file away"
                )
            return None
        state, _ = kept
        if state.plan.run_id != run_id:
            how = "is finished" if state.finished else f"goes on with --run-id {state.plan.run_id}"
            raise CannotStart(f"{self._path} holds run {state.plan.run_id}, which {how}; name another --out")
        return state

    def begin(self, plan: RunPlan) -> RunState:
        """
        The file, empty, and its state. Raises ``CannotStart`` where another replay has written it meanwhile.
        """
        self._open()
        # Looked at again under the lock: the model was loaded since ``find``, and another may have come and gone.
        if kept_state(self._path) is not None or self._path.stat().st_size > 0:
            raise CannotStart(f"{self._path} was written by another replay a moment ago; name another --out")
        self._length_bytes = 0
        self._cut()
        return self._keep(RunState.new(plan))

    def resume(self, found: RunState) -> RunState:  # noqa: ARG002 - the port's signature; read again under the lock
        """
        Cut off what the process before had not finished. Raises ``CannotStart`` for a file shorter than it was.
        """
        self._open()
        kept = kept_state(self._path)
        if kept is None:
            raise CannotStart(f"{self._state_path} was removed a moment ago; start the replay anew")
        state, self._length_bytes = kept
        size_bytes = self._path.stat().st_size
        if size_bytes < self._length_bytes:
            raise CannotStart(
                f"{self._path} has {size_bytes} bytes, its run had written {self._length_bytes}: verdicts are missing. "
                "Restore the file, or replay to another --out"
            )
        self._cut()
        self._state = state
        return state

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab")
        except OSError as error:
            raise CannotStart(f"{self._path} cannot be written: {error.strerror}; name another --out") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotStart(f"{self._path} is being written by another replay; wait for it or stop it") from error

    def _cut(self) -> None:
        file = self._opened()
        file.truncate(self._length_bytes)
        os.fsync(file.fileno())

    def write(self, releases: Sequence[Release], offsets: Mapping[Partition, int], totals: RunTotals) -> None:
        """
        Append the lines, then keep where they end. Raises ``PublishFailed`` when the disk takes no more.
        """
        file, before = self._opened(), self._begun()
        lines = b"".join(release.message.value + b"\n" for release in releases)
        try:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
            self._length_bytes += len(lines)
            positions = {**before.positions, **{partition.number: offset for partition, offset in offsets.items()}}
            self._keep(replace(before, positions=positions, totals=totals))
        except OSError as error:
            raise PublishFailed(
                f"{self._path} cannot be written: {error.strerror}. Make room and go on with --run-id "
                f"{before.plan.run_id}; nothing is lost"
            ) from error

    def finish(self, totals: RunTotals) -> None:
        """
        Keep that the run is over.
        """
        self._keep(replace(self._begun(), totals=totals, finished=True))

    def _keep(self, state: RunState) -> RunState:
        document = {"length_bytes": self._length_bytes, "state": STATES.dump_python(state, mode="json")}
        fresh = self._state_path.with_name(self._state_path.name + ".new")
        with fresh.open("w") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._state_path)
        folder = os.open(self._state_path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._state = state
        return state

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise RuntimeError("begin or resume comes before write")
        return self._file

    def _begun(self) -> RunState:
        if self._state is None:
            raise RuntimeError("begin or resume comes before write")
        return self._state

    def close(self) -> None:
        """
        Close the file, and with it the lock.
        """
        if self._file is not None:
            self._file.close()
            self._file = None
