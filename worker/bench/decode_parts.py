"""
What decoding one picture costs, part by part: each part alone, then whole decodings as the worker does them.

CPU milliseconds per picture, all parts in turn. The parts are the product's own functions; sizes are ``image_size.py``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np
from PIL import Image

from worker.adapters.content_credentials import credentials_reader
from worker.adapters.perceptual_hash import pdq
from worker.adapters.realism_statistics import statistics
from worker.bench.corpus import KINDS, pictures
from worker.bench.measurement import Measured, interleaved, took
from worker.decoders import resizer_of
from worker.decoding.process_decoder import Lifetimes, ProcessDecoder
from worker.decoding.protocol import Setup
from worker.domain import ContentHash, PreprocessSpec
from worker.ports import PictureDecoder
from worker.stages.decode import HASHED_SIDE, REALISM_SIDE, DecodeLimits, PillowDecoder
from worker.stages.native_views import crop_boxes
from worker.stages.one_footing import through_jpeg
from worker.stages.opened import opened
from worker.stages.preprocess import framed, preprocess_spec, resized
from worker.views import GLOBAL_ONLY, ViewSpec

PICTURES: Final = 8
"""Different ones, in every round: large enough together to be in no cache."""

AS_WORKERS_DO: Final = DecodeLimits(max_frames=8, on_grey=True)
WITH_CROPS: Final = ViewSpec(native_crops=8, max_side_px=1024, reencode_quality=90)
"""As the bank that ships asks for."""
WITH_REALISM: Final = ViewSpec(native_crops=8, realism=True)

_OPENAI: Final[Mapping[str, object]] = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}
_ANY_HASH: Final = ContentHash("0" * 64)
_ANSWER_WITHIN_S: Final = 60.0

Work = Callable[[int], object]
"""Done for the picture of this number."""


@dataclass(frozen=True, slots=True)
class DecodeBench:
    """
    For the encoder's input of ``size`` pixels a side: so many rounds over the pictures of the kind named ``kind``.
    """

    size: int = 224
    kind: str = "1mp"
    rounds: int = 5

    def run(self, on_done: Callable[[str, int], None] = lambda *_: None) -> list[Measured]:
        """
        Each part and each whole decoding, in the order in which they are told; ``on_done`` is told what is through.
        """
        files = list(pictures(PICTURES, KINDS[self.kind]))
        child = _process_decoder(spec_of(self.size))
        resizing = _process_decoder(spec_of(self.size, resize="torch"))
        try:
            works = {**_parts(files, self.size), **_wholes(files, self.size, child, resizing)}
            for work in works.values():
                work(0)
            turns = {name: partial(_cpu_ms, work) for name, work in works.items()}
            found = interleaved(turns, self.rounds, on_done=on_done)
        finally:
            child.close()
        resizing.close()
        return [Measured.of(name, "ms CPU", values) for name, values in found.items()]


def spec_of(size: int, *, jpeg_oversampling: int = 0, resize: Literal["pillow", "torch"] = "pillow") -> PreprocessSpec:
    """
    The preprocessing of OpenAI's CLIP at this input size.
    """
    return preprocess_spec({"size": size, "jpeg_oversampling": jpeg_oversampling, "resize": resize, **_OPENAI})


def decoder_of(spec: PreprocessSpec, views: ViewSpec = GLOBAL_ONLY) -> PillowDecoder:
    """
    A decoder in this process, with all facts that a worker finds by default.
    """
    return PillowDecoder(
        spec,
        AS_WORKERS_DO,
        pdq,
        views=views,
        statistics=statistics if views.realism else None,
        credentials=credentials_reader(),
        resizer=resizer_of(spec),
    )


def decode_all(decoder: PictureDecoder, files: Sequence[bytes]) -> Work:
    """
    Decodes the file of a number.
    """
    return lambda number: decoder.decode(files[number], _ANY_HASH)


def _process_decoder(spec: PreprocessSpec) -> ProcessDecoder:
    setup = Setup(
        spec,
        AS_WORKERS_DO,
        GLOBAL_ONLY,
        memory_bytes=1 << 31,
        cpu_s=_ANSWER_WITHIN_S,
        pictures=1 << 20,
        perceptual_hash=True,
        credentials=True,
    )
    return ProcessDecoder(setup, Lifetimes(threads=1, timeout_s=_ANSWER_WITHIN_S, recycle_after=1 << 20))


def _parts(files: Sequence[bytes], size: int) -> dict[str, Work]:
    spec, by_torch = spec_of(size), spec_of(size, resize="torch")
    resizer = resizer_of(by_torch)
    loaded = [_loaded(data) for data in files]
    factor = -(-max(loaded[0].size) // HASHED_SIDE)
    hashed = [np.asarray(picture.reduce(factor)) for picture in loaded]
    squares = [np.asarray(picture.resize((REALISM_SIDE, REALISM_SIDE))) for picture in loaded]
    boxes = crop_boxes(*loaded[0].size, size, WITH_CROPS.native_crops)
    quality = WITH_CROPS.reencode_quality or 0
    read = credentials_reader()
    return {
        "part: JPEG to pixels": lambda number: _loaded(files[number]),
        "part: resize and crop": lambda number: np.asarray(framed(resized(loaded[number], spec), spec)),
        "part: resize by torch and crop": lambda number: np.asarray(
            framed(resized(loaded[number], by_torch, None, resizer), by_torch)
        ),
        "part: reduce for the hash": lambda number: np.asarray(loaded[number].reduce(factor)),
        "part: perceptual hash": lambda number: pdq(hashed[number]),
        "part: content credentials": lambda number: read(files[number]),
        "part: native crops": lambda number: [np.asarray(loaded[number].crop(box)) for box in boxes],
        "part: one JPEG for all": lambda number: through_jpeg(loaded[number], quality),
        "part: square for realism": lambda number: loaded[number].resize(
            (REALISM_SIDE, REALISM_SIDE), Image.Resampling.BICUBIC
        ),
        "part: realism statistics": lambda number: statistics(squares[number]),
    }


def _wholes(files: Sequence[bytes], size: int, child: ProcessDecoder, resizing: ProcessDecoder) -> dict[str, Work]:
    spec = spec_of(size)
    return {
        "whole picture": decode_all(decoder_of(spec), files),
        "whole picture, in a process": decode_all(child, files),
        "whole picture, resized by torch": decode_all(decoder_of(spec_of(size, resize="torch")), files),
        "whole picture, resized by torch, in a process": decode_all(resizing, files),
        "whole picture, jpeg_oversampling 2": decode_all(decoder_of(spec_of(size, jpeg_oversampling=2)), files),
        "whole picture, jpeg_oversampling 1": decode_all(decoder_of(spec_of(size, jpeg_oversampling=1)), files),
        "crops and one JPEG for all": decode_all(decoder_of(spec, WITH_CROPS), files),
        "crops and realism": decode_all(decoder_of(spec, WITH_REALISM), files),
        "crops and realism, resized by torch": decode_all(
            decoder_of(spec_of(size, resize="torch"), WITH_REALISM), files
        ),
    }


def _loaded(data: bytes) -> Image.Image:
    with opened(data, "JPEG") as file:
        return file.first()


def _cpu_ms(work: Work) -> float:
    def all_of_them() -> None:
        for number in range(PICTURES):
            work(number)

    return took(all_of_them).per(PICTURES).cpu_s * 1000
