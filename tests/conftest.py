"""
What every test may ask for: the field data, and the rule that in CI nothing needed may be missing.

And what every test gets: the process's log, and torch, are afterwards as they were, whatever it ran.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recorded_log import log_undone

ROOT = Path(__file__).parents[1]

pytest_plugins = ["tests.servers"]


def missing(what: str) -> None:
    """
    Skip on a laptop, fail in CI: a check that cannot run there would be believed.
    """
    if os.environ.get("CI"):
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"no {what}")


@pytest.fixture(autouse=True)
def process_undone() -> Iterator[None]:
    """
    A command that sets up the log, or an encoder that sets torch's threads, does so for this test and not for the next.
    """
    torch = sys.modules.get("torch")  # most tests need none, and importing it takes seconds
    kept = (torch.get_num_threads(), torch.random.get_rng_state()) if torch else None
    with log_undone():
        yield
    if torch and kept:
        torch.set_num_threads(kept[0])
        torch.random.set_rng_state(kept[1])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """
    The folder of field data, which is too large and too variously licensed to be in the repository.
    """
    found = Path(os.environ.get("TOUCHSTONE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (found / "odd.csv").is_file():
        missing(f"field data at {found} (set TOUCHSTONE_SHARED_DATA)")
    return found
