"""
What the loop and the pipeline tell of themselves to whoever watches: frozen values, which any thread may read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.domain import Partition


@dataclass(frozen=True, slots=True)
class LoopProgress:
    """
    How things stood after the loop's last turn.

    ``turned_s`` is that turn's end on the monotonic clock. ``oldest_received_s``: per partition, when the oldest upload
    was received whose offset is not committed, in seconds since the epoch; None where all is committed. ``withheld``:
    dead letters that wait to be published, in case they are the beginning of a storm; ``storm``: they were.
    """

    turned_s: float
    consumed: int = 0
    in_flight: int = 0
    paused: bool = False
    draining: bool = False
    oldest_received_s: Mapping[Partition, float | None] = field(default_factory=dict)
    withheld: int = 0
    storm: bool = False


@dataclass(frozen=True, slots=True)
class PipelineLoad:
    """
    What the pipeline holds at one moment.

    ``waiting``: uploads before each stage. ``held_bytes``: of fetched images. ``encoder_share``: of the last seconds,
    how much the encoder was busy, 0 to 1.
    """

    waiting: Mapping[str, int]
    held_bytes: int
    encoder_share: float
