"""
The encoder: an open_clip image tower on one device, from uint8 pictures to raw features.

Start with ``load_encoder``. What is loaded is ``worker/adapters/clip_source.py``, how it is built and identified is
``worker/adapters/clip_tower.py``; of the rest of Touchstone, nobody sees a tensor.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from worker.adapters.clip_device import share_cores
from worker.adapters.clip_fused import FusedTower
from worker.adapters.clip_graphs import Forward, Graphs, cuda_recording
from worker.adapters.clip_lanes import Lanes
from worker.adapters.clip_source import resolve
from worker.adapters.clip_tower import Precision, Tower, load_tower
from worker.adapters.heap import keep_freed_memory
from worker.adapters.in_halves import encoded_in_halves
from worker.domain import EncoderFingerprint, Pixels
from worker.errors import EncoderInvalid
from worker.fingerprint import id_of, space_of
from worker.ports import Recorder
from worker.settings.tree import EncoderSettings

COMPOSITION_TOLERANCE: Final[Mapping[str, float]] = {"fp32": 1e-5, "bf16": 1e-3, "fp16": 2e-4}
"""
By precision, how far the companions of a picture in its micro-batch may move any number of its unit vector.

Matrix kernels differ by batch size and round differently; nothing of one picture enters another's features. Measured
on the CPU with ViT-B/32: 2e-7 in fp32, 2e-4 in bf16. On CUDA these are limits to be held, not yet measured.
"""


class ClipEncoder:
    """
    One frozen image tower; any number of threads may call it.

    ``forward`` takes uint8[n, size, size, 3] on ``device`` and gives features [n, dim]. With ``lanes`` batches reach
    the device over them; without, they are copied and computed one after the other.
    """

    def __init__(
        self,
        forward: Forward,
        fingerprint: EncoderFingerprint,
        *,
        device: torch.device,
        recorder: Recorder,
        lanes: Lanes | None = None,
    ) -> None:
        self._forward = forward
        self._fingerprint = fingerprint
        self._device = device
        self._recorder = recorder
        self._lanes = lanes

    @property
    def fingerprint(self) -> EncoderFingerprint:
        """
        What makes this encoder this encoder.
        """
        return self._fingerprint

    def encode(self, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
        """
        Raw features, float32[n, dim], of n pictures of uint8[size, size, 3], in order.

        Out of device memory, the batch is halved until it fits; raises ``UploadFailed`` (ENCODE_OUT_OF_MEMORY) when
        not even one picture does.
        """
        if not pixels:
            return np.empty((0, self._fingerprint.dim), dtype=np.float32)
        place = f"on {self._device}"
        return encoded_in_halves(self._features, pixels, place=place, recorder=self._recorder, tidy=self._tidy)

    @torch.inference_mode()
    def _features(self, batch: Sequence[Pixels]) -> NDArray[np.float32]:
        try:
            if self._lanes is not None:
                return self._lanes.features(batch)
            pictures = torch.from_numpy(np.stack(batch)).to(self._device)
            features: NDArray[np.float32] = self._forward(pictures).to("cpu", torch.float32).numpy()
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error
        return features

    def _tidy(self) -> None:
        if self._device.type == "cuda":
            with self._lanes.turn if self._lanes is not None else nullcontext():
                torch.cuda.empty_cache()


def load_encoder(settings: EncoderSettings, recorder: Recorder, *, batch_size: int = 0) -> ClipEncoder:
    """
    The configured encoder, verified, loaded and tried on one black picture.

    On a GPU, passes for batches of up to ``batch_size`` pictures are recorded, so that no upload waits for that.
    Blocks for seconds, and for a download where weights are neither local nor cached. Raises ``EncoderInvalid``.
    """
    device = _device(settings.device)
    precision = _precision(settings.precision, device)
    share_cores(settings.device, threads=settings.threads, instances=settings.instances)
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda" and precision == "fp32":
        # By default cuDNN rounds the inputs of convolutions to 10 bits; fp32 is asked for to have all of them.
        torch.backends.cudnn.allow_tf32 = False
    source = resolve(settings)
    tower = load_tower(source, precision, device)
    dim = _tried(tower, source.name, precision, device)
    space = space_of(tower.architecture_sha256, tower.weights_sha256, tower.preprocess)
    fingerprint = EncoderFingerprint(
        model=source.name,
        architecture_sha256=tower.architecture_sha256,
        weights_sha256=tower.weights_sha256,
        preprocess=tower.preprocess,
        precision=precision,
        dim=dim,
        space=space,
        # Fused, its vectors round otherwise than open_clip's own in this precision: caches must not mix the two.
        id=id_of(space, f"{precision}-fused" if isinstance(tower.module, FusedTower) else precision),
    )
    lanes = _lanes(settings, tower, fingerprint, device)
    if lanes is not None and settings.cuda_graphs:
        _prepare(lanes, batch_size, source.name, device)
    return ClipEncoder(tower.forward, fingerprint, device=device, recorder=recorder, lanes=lanes)


def _lanes(
    settings: EncoderSettings, tower: Tower, fingerprint: EncoderFingerprint, device: torch.device
) -> Lanes | None:
    """
    Lanes to a GPU in bf16 and fp16; in fp32, pictures are not padded, and features are open_clip's to the bit.
    """
    if device.type != "cuda" or fingerprint.precision == "fp32":
        return None
    side = fingerprint.preprocess.size
    graphs = Graphs(tower.forward, cuda_recording(device) if settings.cuda_graphs else None)
    return Lanes(graphs, shape=(side, side, 3), dim=fingerprint.dim, device=device)


def _prepare(lanes: Lanes, batch_size: int, name: str, device: torch.device) -> None:
    try:
        lanes.prepare(batch_size)
    except RuntimeError as error:
        raise EncoderInvalid(
            f"{name} cannot be made ready on {device} ({str(error).splitlines()[0][:200]}): free memory of the GPU, "
            "configure encoder.cuda_graphs = false, or another device"
        ) from error


def _tried(tower: Tower, name: str, precision: Precision, device: torch.device) -> int:
    """
    The dimension of the features, from a first forward pass that a start must survive.
    """
    side = tower.preprocess.size
    try:
        with torch.inference_mode():
            features = tower.forward(torch.zeros(1, side, side, 3, dtype=torch.uint8, device=device))
    except RuntimeError as error:
        raise EncoderInvalid(
            f"{name} does not run in {precision} on {device} ({str(error).splitlines()[0]}): configure "
            'encoder.precision = "fp32", or another device'
        ) from error
    if not isinstance(features, torch.Tensor) or features.ndim != 2 or not bool(torch.isfinite(features).all()):  # noqa: PLR2004 - n, dim
        raise EncoderInvalid(
            f"{name} gives no finite feature vector in {precision} on {device}: configure encoder.precision = "
            '"fp32" or "bf16", or a model with one feature vector per image'
        )
    return int(features.shape[1])


def _device(configured: str) -> torch.device:
    available = torch.cuda.is_available()
    if configured == "auto":
        return torch.device("cuda" if available else "cpu")
    device = torch.device(configured)
    if device.type == "cuda" and (not available or (device.index or 0) >= torch.cuda.device_count()):
        raise EncoderInvalid(
            f"encoder.device is {configured!r}, but torch {torch.__version__} finds {torch.cuda.device_count()} CUDA "
            'devices: configure "cpu" or "auto", or check the driver and that torch is built for it'
        )
    return device


def _precision(configured: str, device: torch.device) -> Precision:
    if configured == "auto":
        if device.type == "cpu":
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if configured == "fp16" and device.type == "cpu":
        raise EncoderInvalid(
            'encoder.precision is "fp16" on the CPU, where it is several times slower than fp32: configure "fp32", or '
            '"bf16" on a CPU that has it (avx512_bf16 or amx in /proc/cpuinfo)'
        )
    return _known(configured)


def _known(precision: str) -> Precision:
    match precision:
        case "fp32" | "bf16" | "fp16":
            return precision
        case _:
            raise EncoderInvalid(f"encoder.precision is {precision!r}, want fp32, bf16 or fp16")
