"""
Damaged files thrown at the decoder for as long as the soak says: the fuzz tests that keep to a budget of time.

They live with the property tests; here they are only given more time. No worker and no upload takes part.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.soak.scale import Scale
from tests.soak.tally import Tally
from tests.worker_rig import Instruments

TESTS = Path(__file__).parents[1]
BUDGET = "TOUCHSTONE_FUZZ_SECONDS"
SPARE_S = 600


def fuzz_tests() -> Sequence[Path]:
    """
    The test files that read the budget.
    """
    return sorted(path for path in (TESTS / "property").glob("test_*.py") if BUDGET in path.read_text(encoding="utf-8"))


def fuzzed(_instruments: Instruments, _folder: Path, scale: Scale) -> Iterator[Tally]:
    """
    One row for each such file; a file that finds something fails it, and prints what it found.
    """
    for path in fuzz_tests():
        yield _fuzzed(path, scale.fuzz_seconds)


def _fuzzed(path: Path, seconds: int) -> Tally:
    began_s = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--timeout={seconds + SPARE_S}", str(path)],
        cwd=TESTS.parent,
        env={**os.environ, BUDGET: str(seconds)},
        stdout=sys.stderr,
        check=False,
    )
    took_s = round(time.monotonic() - began_s, 1)
    wrong = () if ended.returncode == 0 else (f"{path.name} ended with {ended.returncode}; see above",)
    return Tally(f"fuzzing, {path.stem} for {seconds} s", rounds=1, took_s=took_s, wrong=wrong)
