"""
What decoding costs by the size of the picture, from 0.2 to 12 megapixels, whole and at reduced scale.

CPU milliseconds per picture with all facts that a worker finds by default; the parts of one are ``decode_parts.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from worker.bench.corpus import KINDS, pictures
from worker.bench.decode_parts import Work, decode_all, decoder_of, spec_of
from worker.bench.measurement import Measured, interleaved, took
from worker.domain import ContentHash

SIZES: Final = tuple(KINDS[name] for name in ("0.2mp", "0.5mp", "1mp", "2mp", "4mp", "8mp", "12mp"))
OVERSAMPLINGS: Final = (0, 2, 1)
"""Of ``encoder.jpeg_oversampling``; 0 decodes every JPEG whole."""

_ANY_HASH: Final = ContentHash("0" * 64)


@dataclass(frozen=True, slots=True)
class Reduced:
    """
    How far a picture at reduced scale lies from the same decoded whole, over all pixels of the encoder's input.

    In steps of 8 bits: the largest difference and the mean one.
    """

    size: str
    jpeg_oversampling: int
    largest: int
    mean: float


@dataclass(frozen=True, slots=True)
class ImageSizeBench:
    """
    For the encoder's input of ``side`` pixels: so many rounds over ``pictures`` of each size.
    """

    side: int = 224
    rounds: int = 5
    pictures: int = 2

    def run(self, on_done: Callable[[str, int], None] = lambda *_: None) -> tuple[list[Measured], list[Reduced]]:
        """
        What each size costs for each of ``OVERSAMPLINGS``, and how far the reduced ones are from the whole.
        """
        decoders = {number: decoder_of(spec_of(self.side, jpeg_oversampling=number)) for number in OVERSAMPLINGS}
        works: dict[str, Work] = {}
        reduced: list[Reduced] = []
        for kind in SIZES:
            files = list(pictures(self.pictures, kind))
            whole = [decoders[0].decode(data, _ANY_HASH).pixels for data in files]
            for number, decoder in decoders.items():
                works[f"{kind.name}, jpeg_oversampling {number}"] = decode_all(decoder, files)
                found = [decoder.decode(data, _ANY_HASH).pixels for data in files]
                off = np.abs(np.stack(found).astype(np.int16) - np.stack(whole))
                if number:
                    reduced.append(Reduced(kind.name, number, int(off.max()), round(float(off.mean()), 4)))
        times = interleaved(
            {name: partial(self._cpu_ms, work) for name, work in works.items()}, self.rounds, on_done=on_done
        )
        return [Measured.of(name, "ms CPU", values) for name, values in times.items()], reduced

    def _cpu_ms(self, work: Work) -> float:
        def all_of_them() -> None:
            for number in range(self.pictures):
                work(number)

        return took(all_of_them).per(self.pictures).cpu_s * 1000
