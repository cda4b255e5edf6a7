"""
What the runtimes of exported encoders have in common: how they are asked, and what they refuse in one voice.

The runtimes are modules: ``onnx_session`` and ``openvino_session``.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from worker.errors import EncoderInvalid
from worker.settings.tree import EncoderSettings

TOWER: Final = "tower.onnx"
"""The exported tower in a folder, before a runtime has made of it what it wants; large weights lie beside it."""

LEAST_QUANTISED: Final = 0.5

Pictures = NDArray[np.uint8]
Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Session:
    """
    An encoder that is open.

    ``run`` takes uint8[n, side, side, 3], n from 1 to ``at_once``, may be called by several threads, and raises
    ``MemoryError`` where the pictures do not fit. ``precision`` is that of the fingerprint: it names the runtime too.
    """

    run: Callable[[Pictures], Features]
    precision: str
    at_once: int


@dataclass(frozen=True, slots=True)
class Room:
    """
    Threads of the CPU for each encoding, and how many encodings may run at once.
    """

    threads: int
    instances: int


class Runtime(Protocol):
    """
    Opens exported towers; ``PACKAGES`` have a part in the files that it makes.
    """

    @property
    def PACKAGES(self) -> tuple[str, ...]:  # noqa: N802 - a constant of a module
        """
        Names of distributions.
        """

    def form_of(self, precision: str) -> str:
        """
        Which files a precision is opened from: precisions with one form share them.
        """

    def store(self, folder: Path, form: str) -> None:
        """
        Make of the tower in the folder the files of this form, and of nothing else. Raises ``EncoderInvalid``.
        """

    def open_session(self, folder: Path, precision: str, room: Room) -> Session:
        """
        Open what ``store`` made. Raises ``EncoderInvalid``.
        """


def room_of(settings: EncoderSettings) -> Room:
    """
    As configured; with ``encoder.threads`` 0, all cores that this process may use, shared among the instances.
    """
    instances = settings.instances or 1
    return Room(settings.threads or max(1, len(os.sched_getaffinity(0)) // instances), instances)


def require_quantised(quantised: int, parameters: int) -> None:
    """
    Refuse int8 for a tower of which it would quantise little: it would be called int8, and be fp32 in time and memory.
    """
    share = quantised / max(parameters, 1)
    if share < LEAST_QUANTISED:
        raise EncoderInvalid(
            f'encoder.precision is "int8", which quantises matrix products, and only {share:.0%} of this tower\'s '
            'weights are in any (it is made of convolutions): configure "fp32", or "bf16" with the openvino backend'
        )


def is_out_of_memory(error: Exception) -> bool:
    """
    Whether a runtime's own error says that memory was wanting; they have no type for it.
    """
    said = str(error).lower()
    return isinstance(error, MemoryError) or "bad_alloc" in said or "bad alloc" in said or "allocate memory" in said
