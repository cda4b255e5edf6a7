"""
JPEGs decoded on the encoder's device (``encoder.jpeg_decoder = "device"``), beside Pillow in the same rounds.

By the clock and by CPU time, which tells nothing of a GPU; and how far its pixels and hashes lie from Pillow's.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from worker.adapters.clip_device import on_gpu
from worker.adapters.device_jpeg import DeviceJpegs
from worker.adapters.perceptual_hash import pdq
from worker.bench.corpus import KINDS, pictures
from worker.bench.decode_parts import AS_WORKERS_DO, decoder_of, spec_of
from worker.bench.measurement import Measured, Reading, interleaved
from worker.decoding.device_decoder import DeviceDecoder, Ordinary
from worker.domain import ContentHash
from worker.ports import PictureDecoder
from worker.stages.left_to_device import LeavingJpegs
from worker.views import DecodedPicture

DEVICE_BYTES: Final = 1 << 30
_ANY_HASH: Final = ContentHash("0" * 64)


@dataclass(frozen=True, slots=True)
class Pace:
    """
    One turn: pictures per second by the clock, and CPU milliseconds of each.
    """

    per_s: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class DeviceFound:
    """
    What was measured, and ``summary``: rates, and the distance from what Pillow decodes.
    """

    figures: Sequence[Measured]
    summary: dict[str, object]


@dataclass(frozen=True, slots=True)
class DeviceBench:
    """
    On ``device`` (cpu, cuda or cuda:N), ``batch`` pictures of the kind at a time, as many as there are threads.
    """

    device: str
    size: int = 224
    kind: str = "1mp"
    rounds: int = 5
    batch: int = 32

    def run(self, on_done: Callable[[str, int], None] = lambda *_: None) -> DeviceFound:
        """
        Pillow, then the device, with and without the perceptual hash, in turns. Raises ``CannotStart``.
        """
        files = list(pictures(self.batch, KINDS[self.kind]))
        pillow, device = decoder_of(spec_of(self.size)), DeviceJpegs(self.device)
        decoders: dict[str, PictureDecoder] = {
            f"pillow, {self.batch} threads": pillow,
            f"device {self.device}, {self.batch} threads": self._on(device, hashed=True),
            f"device {self.device}, {self.batch} threads, no perceptual hash": self._on(device, hashed=False),
        }
        with ThreadPoolExecutor(self.batch) as threads:
            turns = {name: partial(_pace, threads, decoder, files) for name, decoder in decoders.items()}
            for turn in turns.values():
                turn()
            found = interleaved(turns, self.rounds, on_done=on_done)
        figures = [
            *(Measured.of(name, "images/s", [pace.per_s for pace in paces]) for name, paces in found.items()),
            *(Measured.of(f"{name}, CPU", "ms CPU", [pace.cpu_ms for pace in paces]) for name, paces in found.items()),
        ]
        before, after = (_all(decoder, files) for decoder in list(decoders.values())[:2])
        rates = {figure.name: figure.median for figure in figures}
        first, second, _ = decoders
        summary: dict[str, object] = {
            "device": device.version,
            "device_images_per_s": round(rates[second], 1),
            "device_ratio": round(rates[second] / rates[first], 3),
            "device_cpu_ratio": round(rates[f"{second}, CPU"] / rates[f"{first}, CPU"], 3),
        }
        return DeviceFound(figures, summary | distances(before, after))

    def _on(self, device: DeviceJpegs, *, hashed: bool) -> DeviceDecoder:
        """
        As a worker decodes with ``isolation = "threads"``, so that CPU time is all in this process.
        """
        pillow = decoder_of(spec_of(self.size))
        looking = LeavingJpegs(pillow, AS_WORKERS_DO, None, DEVICE_BYTES // 3)
        ordinary = Ordinary(looking.decode, pillow)
        return DeviceDecoder(ordinary, device, spec_of(self.size), pdq if hashed else None, most_bytes=DEVICE_BYTES)


def device_for(asked: str) -> str | None:
    """
    The device that ``--device`` comes to: with ``auto`` the GPU where there is one, else None.
    """
    if asked != "auto":
        return asked
    return "cuda" if on_gpu(asked) else None


def distances(before: Sequence[DecodedPicture], after: Sequence[DecodedPicture]) -> dict[str, object]:
    """
    How far pixels lie apart, 0 to 255, and the hashes, in bits of 256.
    """
    off = [np.abs(one.pixels.astype(np.int16) - other.pixels) for one, other in zip(before, after, strict=True)]
    bits = [
        (int(one.facts.pdq or "0", 16) ^ int(other.facts.pdq or "0", 16)).bit_count()
        for one, other in zip(before, after, strict=True)
    ]
    return {
        "device_largest_difference": max(int(one.max()) for one in off),
        "device_mean_difference": round(float(np.mean([one.mean() for one in off])), 5),
        "device_hash_bits": max(bits),
    }


def _all(decoder: PictureDecoder, files: Sequence[bytes]) -> list[DecodedPicture]:
    return [decoder.decode(data, _ANY_HASH) for data in files]


def _pace(threads: ThreadPoolExecutor, decoder: PictureDecoder, files: Sequence[bytes]) -> Pace:
    before = Reading.now()
    done = len(list(threads.map(lambda data: decoder.decode(data, _ANY_HASH), files)))
    took = before.until(Reading.now())
    return Pace(done / took.wall_s, took.cpu_s * 1000 / done)
