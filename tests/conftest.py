"""
What every test may ask for: the field data, and the rule that in CI nothing needed may be missing.
"""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytest_plugins = ["tests.servers"]


def missing(what: str) -> None:
    """
    Skip on a laptop, fail in CI: a check that cannot run there would be believed.
    """
    if os.environ.get("CI"):
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"no {what}")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """
    The folder of field data, which is too large and too variously licensed to be in the repository.
    """
    found = Path(os.environ.get("TOUCHSTONE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (found / "odd.csv").is_file():
        missing(f"field data at {found} (set TOUCHSTONE_SHARED_DATA)")
    return found
