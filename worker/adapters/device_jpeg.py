"""
JPEGs decoded and resized on the encoder's device: torchvision's nvJPEG on a GPU, its libjpeg on a CPU for trying.

The bytes of strangers are read here, in the worker's own process; which bytes get this far is
``worker/stages/left_to_device.py``. Normalising is the encoder's, on the same device.
"""

import io
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version as version_of
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d, interpolate

from worker.adapters import clip_library as _imported_first  # noqa: F401 - torchvision, without torch's compiler
from worker.adapters.clip_graphs import stream_of
from worker.adapters.trial_picture import trial_picture
from worker.decoding.device_batches import DeviceJob, DeviceSeen
from worker.domain import Pixels
from worker.errors import CannotStart

_CHANNELS: Final = 3
_TRIAL_SIDE: Final = 64
_TRIAL_OFF: Final = 8
"""Wide enough for any rounding, too narrow for a decoder that fails and does not say so."""

_MIRRORED: Final = frozenset({2, 4, 5, 7})
_QUARTER_TURNS: Final = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}
"""By orientation: whether it is mirrored from left to right, and how often it is then turned against the clock."""


class DeviceJpegs:
    """
    Decodes batches of plain JPEGs on one device; asked by one thread at a time.

    On a GPU all is done on one stream of its own and has ended when ``make`` returns, so that no memory is handed out
    again while anything still reads it (pytorch/vision#9606). torchvision holds one nvJPEG decoder for the process.
    """

    def __init__(self, device: str) -> None:
        """
        ``device``: cpu, cuda or cuda:N. Decodes a picture of its own. Raises ``CannotStart`` where that fails.
        """
        self._device = torch.device("cuda:0" if device == "cuda" else device)
        self._api = torch.get_device_module(self._device)
        try:
            import torchvision.io as io_of  # type: ignore[import-untyped] # noqa: PLC0415 - no stubs; may be removed

            warnings.filterwarnings("ignore", message=".*capabilities of TorchVision", category=DeprecationWarning)
            self._decode_jpeg, self._rgb = io_of.decode_jpeg, io_of.ImageReadMode.RGB
            self._stream = stream_of(self._device)
            self._try()
        except (ImportError, AttributeError, AssertionError, RuntimeError) as fault:
            said = (str(fault) or repr(fault)).splitlines()[0][:200]
            raise CannotStart(
                f'JPEGs cannot be decoded on {self._device} ({said}), as encoder.jpeg_decoder = "device" has it: that '
                "needs a torchvision built with nvJPEG and a driver that fits, found torchvision "
                f'{version_of("torchvision")}; or set encoder.jpeg_decoder = "pillow"'
            ) from fault

    def _try(self) -> None:
        job = _trial()
        (seen,) = self._together([job])
        with Image.open(io.BytesIO(job.data), formats=["JPEG"]) as expected:
            off = np.abs(np.asarray(expected).astype(np.int16) - seen.small)
        if float(off.mean()) > _TRIAL_OFF:
            raise RuntimeError(f"a trial picture comes out {off.mean():.1f} of 255 off on average, want {_TRIAL_OFF}")

    @property
    def version(self) -> str:
        """
        The library and the device: another GPU may decode in other hardware.
        """
        torchvision = f"torchvision {version_of('torchvision')}"
        if self._device.type != "cuda":
            return f"libjpeg, {torchvision}"
        return f"nvJPEG, {torchvision}, CUDA {torch.version.cuda}, {torch.cuda.get_device_name(self._device)}"

    def make(self, jobs: Sequence[DeviceJob]) -> list[DeviceSeen | None]:
        """
        What was asked of each, in order; None for one that the device refuses or has no memory for.

        A batch that fails is tried picture by picture. A fault that stays with the device fails them all, and the
        encoder's next batch, which ends the worker.
        """
        try:
            return list(self._together(jobs))
        except RuntimeError:  # torchvision has no other, and torch's for memory is one of them
            self._settle()
        if len(jobs) == 1:
            return [None]
        return [seen for job in jobs for seen in self.make([job])]

    def _settle(self) -> None:
        """
        Wait for what a failed batch left under way, before its memory is handed out again.
        """
        with suppress(RuntimeError):  # of a device that is beyond repair, which the encoder will say
            self._api.synchronize(self._device)

    @torch.inference_mode()
    def _together(self, jobs: Sequence[DeviceJob]) -> list[DeviceSeen]:
        files = [torch.from_numpy(np.frombuffer(job.data, np.uint8).copy()) for job in jobs]
        with self._api.stream(self._stream):
            pictures = self._decode_jpeg(files, mode=self._rgb, device=self._device)
            parts: list[torch.Tensor] = []
            for at, job in enumerate(jobs):
                picture, pictures[at] = pictures[at], None  # the batch shrinks as it is worked off
                if picture.shape != (_CHANNELS, job.height, job.width):
                    raise RuntimeError(f"the device decodes {list(picture.shape)}, the header announces otherwise")
                parts += _made(picture, job)
            # One copy for all: each by itself would wait for the device.
            flat = torch.cat([part.flatten() for part in parts]).cpu().numpy()
        return _apart(flat, [tuple(part.shape) for part in parts], jobs)


def _made(picture: torch.Tensor, job: DeviceJob) -> list[torch.Tensor]:
    """
    The parts that are wanted of a decoded picture, each uint8[h, w, 3]: resized, then averaged where it is hashed.

    In floating point, as a GPU has no resize of bytes: 12 bytes for each pixel of one picture at a time.
    """
    levels = _upright(picture, job.orientation).to(torch.float32)[None]
    left, top, right, bottom = job.box
    made = [_rounded(_resized(levels[:, :, top:bottom, left:right], job))]
    if job.hash_factor == 1:
        made.append(_rounded(levels))
    elif job.hash_factor is not None:
        made.append(_rounded(avg_pool2d(levels, job.hash_factor, ceil_mode=True, count_include_pad=False)))
    return [part.to(torch.uint8)[0].permute(1, 2, 0).contiguous() for part in made]


def _resized(levels: torch.Tensor, job: DeviceJob) -> torch.Tensor:
    """
    In two passes, clipped between them, in the order in which Pillow 13 takes them: what is clipped there can be seen.

    That is along the rows first, unless the columns shrink by more than twice as many pixels (found by trying; it says
    so nowhere).
    """
    (width, height), (rows, columns) = job.size, levels.shape[2:]
    columns_first = height < rows and rows - height > 2 * (columns - width)
    for size in ((height, columns) if columns_first else (rows, width), (height, width)):
        if size != tuple(levels.shape[2:]):
            resampled = interpolate(levels, size, mode=job.interpolation, align_corners=False, antialias=True)
            levels = _rounded(resampled)
    return levels


def _rounded(levels: torch.Tensor) -> torch.Tensor:
    return (levels + 0.5).floor_().clamp_(0, 255)


def _upright(picture: torch.Tensor, orientation: int) -> torch.Tensor:
    """
    [3, h, w] with an EXIF orientation undone.
    """
    if orientation in _MIRRORED:
        picture = picture.flip(2)
    turns = _QUARTER_TURNS.get(orientation, 0)
    return torch.rot90(picture, turns, (1, 2)) if turns else picture


def _apart(flat: Pixels, shapes: Sequence[tuple[int, ...]], jobs: Sequence[DeviceJob]) -> list[DeviceSeen]:
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    parts = iter([part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)])
    return [DeviceSeen(next(parts), None if job.hash_factor is None else next(parts)) for job in jobs]


def _trial() -> DeviceJob:
    """
    A picture to be decoded at the start as every upload is, in its own size.
    """
    file = io.BytesIO()
    Image.fromarray(trial_picture(_TRIAL_SIDE)).save(file, "JPEG", quality=95, subsampling=0)
    whole = (_TRIAL_SIDE, _TRIAL_SIDE)
    return DeviceJob(file.getvalue(), *whole, orientation=1, box=(0, 0, *whole), size=whole, interpolation="bicubic")
