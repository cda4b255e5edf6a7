"""
The checks of this machine: does it decode what may be uploaded, is there room; the port's is in ``port.py``.
"""

import os
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
from PIL import __version__ as pillow_version

from worker.adapters.perceptual_hash import pdq
from worker.adapters.torch_resize import open_resizer
from worker.decoders import credentials_version
from worker.doctor.finding import Check, Finding, failed, ok, skipped, warning
from worker.doctor.port import http
from worker.doctor.samples import HEIGHT, SAMPLES, WIDTH
from worker.domain import ContentHash, Pixels, PreprocessSpec
from worker.errors import CannotStart, UploadFailed
from worker.settings.tree import Settings
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.stages.preprocess import Resizer

LEAST_FREE_BYTES: Final = 1 << 30
_NO_HASH: Final = ContentHash("00" * 32)
_SPEC: Final = PreprocessSpec(
    size=16,
    resize_mode="squash",
    interpolation="bilinear",
    fill_color=0,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    sha256="00" * 32,
)


def machine_checks(settings: Settings) -> list[Check]:
    """
    All of them.
    """
    return [
        Check(
            "codecs",
            lambda: codecs(settings),
            "install the dependencies as locked (`make setup`, or the container image): Pillow's own wheel has all",
        ),
        Check("disk", lambda: disk(settings), "give this user the folder of embeddings.path"),
        Check("http", lambda: http(settings), "set http.host to an address of this machine"),
    ]


def codecs(settings: Settings) -> Finding:
    """
    Each configured format decodes a tiny built-in picture to the colours that it has.
    """
    try:
        resizer = open_resizer() if settings.encoder.resize == "torch" else None
    except CannotStart as error:
        return failed(str(error), "install torch as locked, or have Pillow resize and build the bank again")
    found, broken = [], []
    for name in settings.decode.formats:
        fault = _fault_of(name, resizer, hashed=settings.decode.perceptual_hash)
        if fault is None:
            found.append(name)
        else:
            broken.append(f"{name}: {fault}")
    if broken:
        return failed(
            f"Pillow {pillow_version} cannot decode {'; '.join(broken)}",
            "install Pillow's own wheel, or take the format off decode.formats: its uploads would end as failed",
        )
    credentials = credentials_version(settings.decode)
    read = "content credentials not read" if credentials is None else f"content credentials by c2pa {credentials}"
    resized = "" if resizer is None else f", resized by torch {version('torch')}"
    return ok(f"{', '.join(found)} by Pillow {pillow_version}{resized}; {read}")


def _fault_of(name: str, resizer: Resizer | None, *, hashed: bool) -> str | None:
    """
    What is wrong with decoding a format; None where nothing is.
    """
    try:
        spec = _SPEC if resizer is None else replace(_SPEC, resize="torch")
        decoder = PillowDecoder(spec, DecodeLimits(formats=(name,)), pdq if hashed else None, resizer=resizer)
        decoded = decoder.decode(SAMPLES[name], _NO_HASH)
    except (CannotStart, UploadFailed) as error:
        return str(error)
    if (decoded.facts.width, decoded.facts.height) != (WIDTH, HEIGHT):
        return f"found {decoded.facts.width} by {decoded.facts.height} pixels in a picture of {WIDTH} by {HEIGHT}"
    return None if _is_red_and_blue(decoded.pixels) else "the colours of the picture came out wrong"


def _is_red_and_blue(pixels: Pixels) -> bool:
    left, right = np.split(pixels.astype(np.float64), 2, axis=1)
    red, blue = left.mean(axis=(0, 1)), right.mean(axis=(0, 1))
    return bool(red[0] > 2 * red[2] and blue[2] > 2 * blue[0])


def disk(settings: Settings) -> Finding:
    """
    Where embeddings are kept in a file: its folder can be written, and has room.
    """
    path = settings.embeddings.path
    if settings.embeddings.keep != "file" or path is None:
        return skipped(f"embeddings.keep is {settings.embeddings.keep}: nothing is written to this machine's disk")
    folder = path.absolute().parent
    if not folder.is_dir():
        return failed(f"embeddings.path is {path}, and {folder} is no folder", f"make it: mkdir -p {folder}")
    if not _writable(path if path.exists() else folder):
        return failed(f"{path} cannot be written by this user", "let this user own it, or set another embeddings.path")
    free = shutil.disk_usage(folder).free
    text = f"{path}: {free / 2**30:.1f} GiB free"
    if free < LEAST_FREE_BYTES:
        return warning(text, "make room, shorten embeddings.retention_s, or keep embeddings on another disk")
    return ok(text)


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK)
