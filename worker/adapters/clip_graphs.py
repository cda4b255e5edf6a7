"""
A forward pass recorded once for each bucket and replayed: a CUDA graph is launched whole, not operation by operation.

Which buckets there are says ``worker/adapters/clip_buckets.py``; how pictures get there, ``clip_lanes.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
import torch

from worker.adapters.clip_buckets import BUCKETS

log = structlog.get_logger(__name__)

Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Recorded:
    """
    A pass that ``replay`` repeats: it reads ``pixels`` and writes ``features``, which keep their place in memory.
    """

    pixels: torch.Tensor
    features: torch.Tensor
    replay: Callable[[], None]


Recording = Callable[[Forward, torch.Tensor], Recorded]


class Graphs:
    """
    Forward passes by bucket, recorded when a bucket is first asked for; called by one thread at a time.

    Where recording fails, which is said once, passes run operation by operation from then on. Lack of memory is no such
    failure: it is raised as torch raises it, and ``most`` is from then on the largest bucket to be asked for.
    """

    def __init__(self, forward: Forward, record: Recording | None) -> None:
        self._forward = forward
        self._record = record
        self._recorded: dict[int, Recorded] = {}
        self.most = BUCKETS[-1]

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """
        The features of a whole bucket of pictures; they stay as they are until the next call.
        """
        recorded = self._recorded.get(len(pixels)) or self._recording(pixels)
        if recorded is None:
            return self._forward(pixels)
        recorded.pixels.copy_(pixels)
        recorded.replay()
        return recorded.features

    def _recording(self, pixels: torch.Tensor) -> Recorded | None:
        if self._record is None:
            return None
        try:
            recorded = self._record(self._forward, pixels.clone())
        except torch.OutOfMemoryError:
            self._did_not_fit(len(pixels))
            raise
        except RuntimeError as error:
            log.warning(
                "encoder.cuda_graphs_off",
                error=str(error).splitlines()[0][:200],
                pictures=len(pixels),
                advice="set encoder.cuda_graphs = false to start without trying, and report this with the GPU's name",
            )
            self._record = None
            self._recorded.clear()
            return None
        self._recorded[len(pixels)] = recorded
        return recorded

    def _did_not_fit(self, pictures: int) -> None:
        self.most = max((bucket for bucket in BUCKETS if bucket < pictures), default=pictures)
        log.warning(
            "encoder.batch_too_large",
            pictures=pictures,
            done=f"batches are cut into pieces of at most {self.most}",
            advice="free memory of the GPU, or set a smaller batch.size",
        )


def stream_of(device: torch.device) -> Any:  # noqa: ANN401 - torch has a class for each kind of device
    """
    A new stream of this device; on a CPU one that does nothing.
    """
    streams: Any = torch.get_device_module(device).Stream
    return streams(device) if device.type == "cuda" else streams()


def event_of(device: torch.device) -> Any:  # noqa: ANN401 - likewise
    """
    A new event of this device; whoever waits for one of a GPU sleeps, and leaves the core to those who decode.
    """
    events: Any = torch.get_device_module(device).Event
    return events(blocking=True) if device.type == "cuda" else events()


def cuda_recording(device: torch.device) -> Recording:
    """
    How a CUDA device records: all graphs share one pool of memory, since no two are replayed at the same time.

    They share one stream to be recorded on, too: memory of a pool is used again only for the stream that it was for.
    """
    pool: Any = torch.cuda.graph_pool_handle()
    aside = stream_of(device)

    def record(forward: Forward, pixels: torch.Tensor) -> Recorded:
        # Outside of the recording first: libraries choose their kernels and take their memory.
        current = torch.cuda.current_stream(pixels.device)
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(2):
                forward(pixels)
        current.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Only this thread's operations are recorded: others may copy pictures meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=aside, capture_error_mode="thread_local"):
            features = forward(pixels)
        return Recorded(pixels, features, graph.replay)

    return record
