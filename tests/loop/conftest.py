"""
What the tests of the whole loop share: a world, and its log.
"""

import io
from collections.abc import Iterator

import pytest

from tests.loop_world import World
from tests.recorded_log import log_undone
from worker.settings.tree import LogSettings
from worker.telemetry.log import configure_logging


@pytest.fixture(autouse=True)
def log() -> Iterator[io.StringIO]:
    """
    Where the worker's log goes: JSON, as in production.
    """
    stream = io.StringIO()
    with log_undone():
        configure_logging(LogSettings(format="json", level="info"), stream=stream)
        yield stream


@pytest.fixture
def world() -> Iterator[World]:
    """
    Three partitions of uploads, and nobody yet who reads them.
    """
    with World() as world:
        yield world
