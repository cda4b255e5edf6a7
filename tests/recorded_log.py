"""
The log of one test: read back line by line, and undone afterwards.
"""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

TOUCHED = (None, "worker", "schemas", "kafka.client", "botocore")


@contextmanager
def log_undone() -> Iterator[None]:
    """
    Whatever happens to the process's log inside is undone at the end.
    """
    before = [(logger, list(logger.handlers), logger.level) for logger in map(logging.getLogger, TOUCHED)]
    try:
        yield
    finally:
        for logger, handlers, level in before:
            logger.handlers[:] = handlers
            logger.setLevel(level)
        logging.captureWarnings(capture=False)
        structlog.reset_defaults()


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    """
    Every line of a log in JSON.
    """
    return [json.loads(line) for line in stream.getvalue().splitlines()]
