"""
What a replay could not judge, added up by code, and the log lines about single uploads that these sums stand for.

The verdicts carry the rest: each failed one says its code, its stage and what was found.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

FLOW_LOGGER: Final = "worker.flow"
_SUMMED: Final = frozenset({"upload.failed", "event.dead_lettered"})


class Failures:
    """
    How many uploads failed and how many records were no upload, by the code of the error; of this process.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, code: str) -> None:
        """
        One more, whose outcome was written.
        """
        self._counts[code] += 1

    @property
    def by_code(self) -> Mapping[str, int]:
        """
        The most frequent first.
        """
        return dict(sorted(self._counts.items(), key=lambda one: (-one[1], one[0])))

    def __str__(self) -> str:
        return " ".join(f"{code}={count}" for code, count in self.by_code.items())


@contextmanager
def summed_up() -> Iterator[None]:
    """
    Inside, no warning is logged of a single failed upload or dead letter: of a million there would be a million.

    What is logged as an error, which is a fault of ours, is still told one by one.
    """
    logger = logging.getLogger(FLOW_LOGGER)
    logger.addFilter(_is_told)
    try:
        yield
    finally:
        logger.removeFilter(_is_told)


def _is_told(record: logging.LogRecord) -> bool:
    said = record.msg
    return record.levelno >= logging.ERROR or not (isinstance(said, dict) and said.get("event") in _SUMMED)
