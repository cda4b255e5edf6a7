"""
JPEGs for a device, and decoders that leave them to torch's device of a CPU: the code that runs on a GPU, without one.
"""

from collections import Counter
from functools import cache

import numpy as np
from PIL import Image

from tests.pictures import OPENAI
from worker.adapters.device_jpeg import DeviceJpegs
from worker.decoding.device_batches import JpegDevice
from worker.decoding.device_decoder import DeviceDecoder, Ordinary
from worker.domain import Pixels, PreprocessSpec
from worker.stages.decode import CredentialsReader, DecodeLimits, PerceptualHash, PillowDecoder
from worker.stages.left_to_device import LeavingJpegs
from worker.stages.preprocess import preprocess_spec

SIZE = 64
MOST_BYTES = 1 << 24
NEAR = 2
"""The largest difference from Pillow's pixels that is accepted of any channel, 0 to 255: see ``DeviceJpegs``."""


def device_spec(size: int = SIZE, **config: object) -> PreprocessSpec:
    """
    The preprocessing whose JPEGs are left to a CPU's device.
    """
    return preprocess_spec({"size": size, **OPENAI, "jpeg_decoder": "libjpeg", **config})


@cache
def cpu_device() -> DeviceJpegs:
    """
    Torch's own decoder on the CPU.
    """
    return DeviceJpegs("cpu")


def leaving(
    spec: PreprocessSpec | None = None,
    *,
    limits: DecodeLimits | None = None,
    credentials: CredentialsReader | None = None,
    most_pixels: int = MOST_BYTES // 3,
) -> LeavingJpegs:
    """
    A decoder in this process that leaves JPEGs.
    """
    limits = limits or DecodeLimits()
    decoder = PillowDecoder(spec or device_spec(), limits, None, credentials=credentials)
    return LeavingJpegs(decoder, limits, credentials, most_pixels)


def on_device(
    device: JpegDevice | None = None,
    *,
    spec: PreprocessSpec | None = None,
    perceptual_hash: PerceptualHash | None = None,
    ends: Counter[str] | None = None,
) -> DeviceDecoder:
    """
    A decoder with that device; ``ends`` counts what became of the JPEGs that were left to it.
    """
    spec, counted = spec or device_spec(), Counter[str]() if ends is None else ends
    plain = PillowDecoder(spec, DecodeLimits(), perceptual_hash)
    looking = LeavingJpegs(plain, DecodeLimits(), None, MOST_BYTES // 3)
    return DeviceDecoder(
        Ordinary(looking.decode, plain),
        device or cpu_device(),
        spec,
        perceptual_hash,
        most_bytes=MOST_BYTES,
        on_end=lambda result: counted.update([result]),
    )


def furthest(one: Pixels, other: Pixels) -> int:
    """
    The largest difference of any channel, 0 to 255.
    """
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def turned(orientation: int) -> bytes:
    """
    An EXIF block with nothing but the orientation.
    """
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()
