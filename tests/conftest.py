"""
What every test may ask for: the field data, and the rule that in CI nothing needed may be missing.

And what every test gets: the process's log, and torch, are afterwards as they were, whatever it ran. And in which order
they run, and how Hypothesis looks at a busy machine.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.recorded_log import log_undone

ROOT = Path(__file__).parents[1]
OF_SERVERS_S = 400

pytest_plugins = ["tests.servers"]

# A busy machine is no slow code. In CI the examples are the same in each run: Hypothesis' own profile for it says so.
settings.register_profile(
    "tests",
    settings.get_profile("ci" if os.environ.get("CI") else "default"),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """
    Where only the tests that run alone are asked for, files without any are not read: importing them all takes longer.
    """
    if config.option.markexpr != "alone" or not collection_path.match("test_*.py"):
        return None
    return True if "mark.alone" not in collection_path.read_text(encoding="utf-8") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Files that take long come first, so that with several processes none is left with them when the others are done.

    Within what takes equally long the order stays the shuffled one. pytest-xdist needs ``--no-loadscope-reorder``. What
    needs servers also has more time before it is taken for hung: a worker's start alone may take minutes.
    """
    weights: dict[Path, tuple[float, ...]] = {}
    for item in items:
        weights[item.path] = max(weights.get(item.path, ()), _weight(item))
    items.sort(key=lambda item: weights[item.path], reverse=True)
    for item in items:
        if item.get_closest_marker("servers") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(OF_SERVERS_S))


def _weight(item: pytest.Item) -> tuple[float, ...]:
    patience = item.get_closest_marker("timeout")
    limit_s = float(patience.args[0]) if patience else 0.0
    return limit_s, *(float(item.get_closest_marker(name) is not None) for name in ("slow", "servers"))


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
