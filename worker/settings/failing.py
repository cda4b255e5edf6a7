"""
How often a failed upload is tried again, and how many dead letters in a row stop the worker: settings of failing.

As in ``tree.py``: the defaults are those of ``config/worker.toml``, where each is explained.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from worker.settings.section import Seconds, Section


class RetrySettings(Section):
    """
    How often an upload is tried again that failed for a reason which time may mend, and after how long.
    """

    in_process: Annotated[int, Field(ge=0, le=10)] = 2
    first_wait_s: Seconds = 0.2
    longest_wait_s: Seconds = 2.0
    delays_s: Annotated[tuple[Seconds, ...], Field(max_length=8)] = (30.0, 300.0, 1800.0)

    def _contradictions(self) -> Iterator[str]:
        if self.longest_wait_s < self.first_wait_s:
            yield f"longest_wait_s ({self.longest_wait_s}) must not be below first_wait_s ({self.first_wait_s})"
        if any(later <= sooner for sooner, later in pairwise(self.delays_s)):
            yield f"delays_s must grow from one to the next, found {list(self.delays_s)}"


class StormSettings(Section):
    """
    How many dead letters in a row, or among the last outcomes, are an outage rather than bad uploads.
    """

    consecutive: Annotated[int, Field(ge=0, le=10_000)] = 50
    share: Annotated[float, Field(ge=0, le=1)] = 0.2
    window: Annotated[int, Field(ge=10, le=100_000)] = 200
    hold_s: Seconds = 2.0
