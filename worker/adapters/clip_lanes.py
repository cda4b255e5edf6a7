"""
How pictures get to an accelerator and features back: over lanes, so that one batch is copied while another computes.

Each lane has its place in memory that the device can read by itself (pinned), and a stream for its copies. The passes
themselves take turns on one stream: see ``worker/adapters/clip_graphs.py``. The same code runs on a CPU, where streams
do nothing, for the tests.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from worker.adapters.clip_buckets import BUCKETS, cut, reached
from worker.adapters.clip_graphs import Graphs, event_of, stream_of
from worker.domain import Pixels

LANES: Final = 3
"""One computes, one is copied, one is filled."""


@dataclass(frozen=True, slots=True)
class _Flight:
    """
    A piece of a batch that is under way on a lane.
    """

    lane: "_Lane"
    count: int


class _Lane:
    """
    Room for one bucket on its way there and back; used by one thread at a time.
    """

    def __init__(self, shape: tuple[int, int, int], dim: int, device: torch.device) -> None:
        pinned = device.type == "cuda"
        most = BUCKETS[-1]
        self.pictures = torch.empty((most, *shape), dtype=torch.uint8, pin_memory=pinned)
        self.there = torch.empty((most, *shape), dtype=torch.uint8, device=device)
        self.features = torch.empty((most, dim), dtype=torch.float32, pin_memory=pinned)
        self.copies: Any = stream_of(device)
        self.copied: Any = event_of(device)
        self.done: Any = event_of(device)


class Lanes:
    """
    Features of any number of pictures, by batches of fixed sizes; several threads may call it, which is what for.
    """

    def __init__(
        self, graphs: Graphs, *, shape: tuple[int, int, int], dim: int, device: torch.device, lanes: int = LANES
    ) -> None:
        self._graphs = graphs
        self._shape = shape
        self._device = device
        self._api = torch.get_device_module(device)
        self._passes: Any = stream_of(device)
        self.turn = threading.Lock()
        """Held while a pass is recorded or launched: torch's memory must not be tidied up meanwhile."""
        self._free: SimpleQueue[_Lane] = SimpleQueue()
        for _ in range(lanes):
            self._free.put(_Lane(shape, dim, device))

    def prepare(self, pictures: int) -> None:
        """
        Record the passes of batches of up to so many pictures, the smallest first: later, uploads would wait for it.

        Raises ``torch.OutOfMemoryError`` where not even one picture fits.
        """
        for bucket in reached(pictures):
            if not self._fits(bucket):
                break

    def _fits(self, bucket: int) -> bool:
        try:
            self.features([np.zeros(self._shape, dtype=np.uint8)] * bucket)
        except torch.OutOfMemoryError:
            if bucket == 1:
                raise
        else:
            return True
        # Outside of the handler: the exception's traceback would keep the tensors that did not fit.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return False

    @torch.inference_mode()
    def features(self, batch: Sequence[Pixels]) -> NDArray[np.float32]:
        """
        float32[n, dim], in order.

        Raises ``torch.OutOfMemoryError`` where a piece does not fit; nothing is under way then.
        """
        under_way: deque[_Flight] = deque()
        parts: list[NDArray[np.float32]] = []
        try:
            start = 0
            for count, bucket in cut(len(batch), self._graphs.most):
                under_way.append(self._off(batch[start : start + count], bucket, self._lane(under_way, parts)))
                start += count
            while under_way:
                parts.append(self._landed(under_way.popleft()))
        finally:
            for flight in under_way:  # after a fault: its lanes are for others
                self._landed(flight)
        return np.concatenate(parts)

    def _lane(self, under_way: deque[_Flight], parts: list[NDArray[np.float32]]) -> _Lane:
        """
        A free lane. Nobody waits for one while he holds others: his own are waited for first.
        """
        while under_way:
            try:
                return self._free.get_nowait()
            except Empty:
                parts.append(self._landed(under_way.popleft()))
        return self._free.get()

    def _off(self, batch: Sequence[Pixels], bucket: int, lane: _Lane) -> _Flight:
        """
        Send pictures on their way; returns before the device has done anything.
        """
        try:
            self._load(batch, bucket, lane)
            with self.turn, self._api.stream(self._passes):
                self._passes.wait_event(lane.copied)
                found = self._graphs(lane.there[:bucket])
                # Widened on the device: between unlike types the copy would wait for it.
                lane.features[:bucket].copy_(found.to(torch.float32), non_blocking=True)
                lane.done.record(self._passes)
        except BaseException:
            lane.copied.synchronize()  # before somebody else fills it
            self._free.put(lane)
            raise
        return _Flight(lane, len(batch))

    def _load(self, batch: Sequence[Pixels], bucket: int, lane: _Lane) -> None:
        room = lane.pictures.numpy()
        for row, picture in enumerate(batch):
            room[row] = picture
        room[len(batch) : bucket] = 0
        with self._api.stream(lane.copies):
            lane.there[:bucket].copy_(lane.pictures[:bucket], non_blocking=True)
            lane.copied.record(lane.copies)

    def _landed(self, flight: _Flight) -> NDArray[np.float32]:
        """
        The features of a piece, once the device is done with it; waiting lets other threads run.
        """
        try:
            flight.lane.done.synchronize()
            found: NDArray[np.float32] = flight.lane.features[: flight.count].numpy().copy()
        finally:
            self._free.put(flight.lane)
        return found
