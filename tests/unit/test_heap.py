"""
What the C library does with freed memory, asked in processes of their own: it is told for a whole process.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import worker

ROUNDS: Final = 8
BLOCKS: Final = 4
BLOCK_BYTES: Final = 12 << 20
PAGES: Final = ROUNDS * BLOCKS * BLOCK_BYTES // 4096

PROGRAM: Final = f"""
import resource, sys
from worker.adapters.heap import keep_freed_memory
told = keep_freed_memory() if sys.argv[1] == "kept" else None
def work():
    for _ in range({ROUNDS}):
        blocks = [bytearray({BLOCK_BYTES}) for _ in range({BLOCKS})]
        del blocks
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> tuple[str, int]:
    """
    What telling the library came to, and the page faults of allocating and freeing the same again and again.
    """
    command = [sys.executable, "-c", PROGRAM, mode]
    said = subprocess.run(
        command, cwd=Path(worker.__file__).parents[1], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    told, count = said.split()
    return told, int(count)


def test_what_is_freed_is_kept_for_the_next_batch() -> None:
    """
    Blocks of some megabytes are found again where they were; without being told, the library gives them back.
    """
    told, kept = faults("kept")
    if told == "False":
        pytest.skip("this C library takes no such wishes")
    _, given_back = faults("as it is")

    assert kept < PAGES // 100
    assert given_back > 10 * kept
