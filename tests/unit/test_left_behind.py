"""
What a killed process leaves on the disk of embeddings and verdicts that it had laid down for a while: nothing.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LEAST_BYTES = 4_000_000
"""How much of the rows must be on disk, so that there is something to leave behind."""

EMBEDDINGS = """
from tests.sightings import a_hash
from worker.adapters.sighting_rows import Row, SightingRows

rows = SightingRows(None)
for number in range(6_000):
    rows.put([Row(a_hash(str(number)), b"s", False, 0.0, b"m" * 1_500, b"f")])
rows.remove([a_hash("3")])
print(len(rows.get([a_hash("3"), a_hash("4")], b"s")), flush=True)
input()
"""

VERDICTS = """
from tests.diff_worlds import Said, verdict
from worker.diff.joining import joined

with joined() as store:
    one = verdict(Said("e"))
    for number in range(12_000):
        named = one.input.model_copy(update={"event_id": f"e{number}"})
        store.add("a", one.model_copy(update={"input": named}))
    next(iter(store.pairs()))
    print(1, flush=True)
    input()
"""


@contextmanager
def holding(script: str, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """
    A process that has laid rows down, with this folder for temporary files, and waits.
    """
    environ = {name: value for name, value in os.environ.items() if name != "SQLITE_TMPDIR"}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, env=environ | {"TMPDIR": str(folder)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert "1\n" == process.stdout.readline()
            yield process
        finally:
            process.kill()


def nameless_bytes(pid: int, folder: Path) -> int:
    """
    The size of the open files of a process that lay in this folder and have no name any more.
    """
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = str(descriptor.readlink())
        if target.startswith(str(folder)) and target.endswith("(deleted)"):
            found += descriptor.stat().st_size
    return found


@pytest.mark.parametrize("script", [EMBEDDINGS, VERDICTS], ids=["embeddings", "verdicts"])
def test_a_killed_process_leaves_nothing(script: str, tmp_path: Path) -> None:
    """
    The rows lie on disk, in the folder for temporary files, but under no name: SIGKILL gives the room back.
    """
    with holding(script, tmp_path) as process:
        laid_down = nameless_bytes(process.pid, tmp_path)
        while_it_lives = list(tmp_path.iterdir())
        process.send_signal(signal.SIGKILL)
        process.wait()

    assert -signal.SIGKILL == process.returncode
    assert laid_down >= LEAST_BYTES
    assert [] == while_it_lives
    assert [] == list(tmp_path.iterdir())
