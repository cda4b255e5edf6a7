"""
Pictures and image files for tests, made on the spot: no binary lies in the repository.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms, ImageFilter

from worker.adapters.realism_statistics import statistics
from worker.domain import ContentHash, Pixels, PreprocessSpec
from worker.stages.decode import DecodeLimits, PerceptualHash, PillowDecoder
from worker.stages.preprocess import preprocess_spec
from worker.views import GLOBAL_ONLY, ViewSpec

ANY_HASH = ContentHash("0" * 64)
OPENAI = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


def photograph(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """
    Something with edges, gradients, colours and a little noise; the same for the same seed.
    """
    randomness = np.random.default_rng(seed)
    coarse = randomness.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = randomness.integers(-12, 13, (height, width, 3))
    grained = np.clip(np.asarray(picture).astype(np.int16) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(grained).filter(ImageFilter.GaussianBlur(0.6))


def encoded(picture: Image.Image, format_name: str, **options: object) -> bytes:
    """
    The picture as a file of this format.
    """
    buffer = io.BytesIO()
    picture.save(buffer, format_name, **options)
    return buffer.getvalue()


def spec_of(size: int, **config: object) -> PreprocessSpec:
    """
    A preprocess spec with OpenAI's numbers.
    """
    return preprocess_spec({"size": size, **OPENAI, **config})


def decoder_of(
    size: int,
    *,
    limits: DecodeLimits | None = None,
    perceptual_hash: PerceptualHash | None = None,
    views: ViewSpec = GLOBAL_ONLY,
) -> PillowDecoder:
    """
    A decoder for inputs of this side; a picture of that very side passes through it unscaled.
    """
    return PillowDecoder(spec_of(size), limits or DecodeLimits(), perceptual_hash, views=views, statistics=statistics)


def decoded(data: bytes, size: int) -> Pixels:
    """
    The pixels alone.
    """
    return decoder_of(size).decode(data, ANY_HASH).pixels


def png_that_announces(width: int, height: int) -> bytes:
    """
    A PNG of a few dozen bytes whose header announces this size and whose data are empty.
    """
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def profile_with_red_and_blue_swapped() -> bytes:
    """
    An ICC profile under which pure red means blue: sRGB with the places of two of its primaries exchanged.
    """
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    entries = {}
    for index in range(struct.unpack_from(">I", profile, 128)[0]):
        start = 132 + 12 * index
        entries[bytes(profile[start : start + 4])] = start
    red, blue = entries[b"rXYZ"], entries[b"bXYZ"]
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile)


def profile_with_another_curve_between_levels(step: int = 15) -> bytes:
    """
    An ICC profile that is sRGB at every ``step``-th level of each channel, and black at all others.
    """
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    levels = [level / 255 for level in range(256)]
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    table = [round(65535 * value) if level % step == 0 else 0 for level, value in enumerate(linear)]
    curve = struct.pack(">4sII256H", b"curv", 0, 256, *table)
    for index in range(struct.unpack_from(">I", profile, 128)[0]):
        start = 132 + 12 * index
        if profile[start + 1 : start + 4] == b"TRC":
            struct.pack_into(">II", profile, start + 4, len(profile), len(curve))
    profile += curve
    struct.pack_into(">I", profile, 0, len(profile))
    return bytes(profile)
