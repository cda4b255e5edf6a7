"""
Damaged files thrown at the decoder for as long as the soak says: the fuzz tests that keep to a budget of time.

They live with the property tests; here they are only given more time. No worker and no upload takes part.
"""

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
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


def fuzzed(_instruments: Instruments, folder: Path, scale: Scale) -> Iterator[Tally]:
    """
    One row for each such file; a file that finds something fails it, and prints what it found.

    So does a file of which nothing ran. What was skipped for want of data that not everybody has is told in the row.
    """
    for path in fuzz_tests():
        yield _fuzzed(path, scale.fuzz_seconds, folder)


def _fuzzed(path: Path, seconds: int, folder: Path) -> Tally:
    began_s = time.monotonic()
    report = folder / f"{path.stem}.xml"
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--timeout={seconds + SPARE_S}", f"--junitxml={report}", str(path)],
        cwd=TESTS.parent,
        env={**os.environ, BUDGET: str(seconds)},
        stdout=sys.stderr,
        check=False,
    )
    took_s = round(time.monotonic() - began_s, 1)
    wrong = [] if ended.returncode == 0 else [f"{path.name} ended with {ended.returncode}; see above"]
    ran, skipped = counted(report)
    if ran == skipped:
        wrong.append(f"{path.name}: of {ran} tests {skipped} were skipped, and none ran")
    left_out = f", {skipped} of {ran} tests skipped" if skipped else ""
    title = f"fuzzing, {path.stem} for {seconds} s{left_out}"
    return Tally(title, rounds=1, took_s=took_s, wrong=tuple(wrong))


def counted(report: Path) -> tuple[int, int]:
    """
    How many tests there were, and how many of them were skipped: pytest ends with 0 where all were.
    """
    if not report.exists():
        return 0, 0
    suites = list(ET.parse(report).getroot().iter("testsuite"))  # noqa: S314 - our own pytest wrote it
    return sum(int(one.get("tests", 0)) for one in suites), sum(int(one.get("skipped", 0)) for one in suites)
