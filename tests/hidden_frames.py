"""
Animations that hide a generated reference of the small bank behind real ones, for whoever tests that they are found.
"""

import io
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from tests.bank_builders import a_picture
from tests.loop_rig import KNOWN_GENERATED, KNOWN_REAL
from tests.pictures import encoded
from worker.stages.decode import DecodeLimits

SHOWN: Final = KNOWN_REAL + 5
HIDDEN: Final = KNOWN_GENERATED + 1
"""Seeds of references that are decided alone under the shipped policy, one of each label."""

AS_WORKERS_DO: Final = DecodeLimits(max_frames=8, on_grey=True)
"""How many looks a worker takes by default."""


def scene(name: str) -> bytes:
    """
    The real reference that the animations show, as a still picture.
    """
    return encoded(_image(SHOWN), name, **_lossless(name))


def hiding_generated(name: str, count: int, at: int) -> tuple[bytes, bytes]:
    """
    An animation of a real reference, in which a dot moves, with a generated one as one frame; and that one alone.
    """
    frames = []
    for number in range(count):
        frame = _image(SHOWN)
        ImageDraw.Draw(frame).point((number % frame.width, number // frame.width), fill="red")
        frames.append(frame)
    frames[at] = _image(HIDDEN)
    animation = encoded(frames[0], name, save_all=True, append_images=frames[1:], **_lossless(name))
    return animation, encoded(frames[at], name, **_lossless(name))


def white_on_nothing() -> bytes:
    """
    A PNG that is white throughout, with a generated reference as its alpha.
    """
    alpha = np.asarray(_image(HIDDEN).convert("L"))
    return encoded(Image.fromarray(np.dstack([np.full((*alpha.shape, 3), 255, np.uint8), alpha])), "PNG")


def _image(seed: int) -> Image.Image:
    with Image.open(io.BytesIO(a_picture(seed))) as image:
        return image.convert("RGB")


def _lossless(name: str) -> dict[str, bool]:
    return {"lossless": True} if name == "WEBP" else {}
