"""
Pictures that many threads want of one device, made in batches: no thread of its own, and nobody waits for company.

What a device does with a batch is ``worker/adapters/device_jpeg.py``; who asks is ``device_decoder.py``.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from worker.domain import Pixels


@dataclass(frozen=True, slots=True)
class DeviceJob:
    """
    One JPEG, and what is to be made of it: turned upright, its ``box`` brought to ``size`` (width, height).

    ``width`` and ``height`` are those of the file, ``box`` is left, top, right and bottom of the upright picture. With
    ``hash_factor`` the whole upright picture is averaged over squares of so many pixels a side as well.
    """

    data: bytes = field(repr=False)
    width: int
    height: int
    orientation: int
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    interpolation: Literal["bicubic", "bilinear"]
    hash_factor: int | None = None

    @property
    def device_bytes(self) -> int:
        """
        What its pixels take on the device.
        """
        return self.width * self.height * 3


@dataclass(frozen=True, slots=True)
class DeviceSeen:
    """
    What a device made of a JPEG: uint8[h, w, 3] of the size that was asked for, and averaged for the hash.
    """

    small: Pixels = field(repr=False)
    thumbnail: Pixels | None = field(repr=False)


class JpegDevice(Protocol):
    """
    What decodes JPEGs; asked by one thread at a time.
    """

    @property
    def version(self) -> str:
        """
        What it is, for ``versions.decoder``: library, its version and the device.
        """

    def make(self, jobs: Sequence[DeviceJob]) -> Sequence[DeviceSeen | None]:
        """
        For each job, in order, what was asked for; None for one that the device cannot decode. Blocks.
        """


@dataclass(slots=True, eq=False)
class _Waiting:
    job: DeviceJob
    done: bool = False
    found: DeviceSeen | None = None


class DeviceBatches:
    """
    Gives each thread its picture. Whoever finds the device idle brings it all that waits, up to ``most_bytes``.

    So a batch is what came while the one before it was made, and one picture that comes alone waits for nobody. The
    first of a batch may be larger than the limit; only one batch is under way.
    """

    def __init__(self, device: JpegDevice, *, most_bytes: int) -> None:
        self._device = device
        self._most_bytes = most_bytes
        self._changed = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._busy = False

    def ask(self, job: DeviceJob) -> DeviceSeen | None:
        """
        What the device makes of it; None where it cannot. Blocks.
        """
        mine = _Waiting(job)
        with self._changed:
            self._queue.append(mine)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: mine.done or not self._busy)
                if mine.done:
                    return mine.found
                self._busy, batch = True, self._next()
            self._make(batch)

    def _next(self) -> list[_Waiting]:
        batch = [self._queue.popleft()]
        room = self._most_bytes - batch[0].job.device_bytes
        while self._queue and (room := room - self._queue[0].job.device_bytes) >= 0:
            batch.append(self._queue.popleft())
        return batch

    def _make(self, batch: Sequence[_Waiting]) -> None:
        found: Sequence[DeviceSeen | None] = [None] * len(batch)
        try:
            found = self._device.make([one.job for one in batch])
        finally:  # after a fault of ours the others are decoded elsewhere, and this thread tells it
            with self._changed:
                for one, seen in zip(batch, found, strict=True):
                    one.done, one.found = True, seen
                self._busy = False
                self._changed.notify_all()
