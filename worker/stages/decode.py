"""
Decode: hostile bytes to pixels, or to a stable error code; never to anything else.

Which formats, how large, which frame and which failure is which stand here; colour is ``worker/stages/colour.py``,
size is ``worker/stages/preprocess.py``.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from PIL import (
    AvifImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
    __version__,
    features,
)

from schemas.errors import ErrorCode
from schemas.verdict import ImageFacts
from worker.domain import ContentHash, Pixels, PreprocessSpec
from worker.errors import CannotStart, UploadFailed
from worker.stages.colour import ProfileUnusable, flattened, in_srgb
from worker.stages.preprocess import RULES_VERSION, framed, resized
from worker.stages.sniff import MEDIA_TYPES, announced_bytes, description_of, format_of

PerceptualHash = Callable[[Pixels], tuple[str, int]]
"""From uint8[h, w, 3] of at most ``HASHED_SIDE`` pixels a side to the hash in hex and its quality."""

HASHED_SIDE: Final = 512

# Imported for their registration, so that no thread ever finds Pillow without them and loads its other forty openers.
_OPENERS: Final = (AvifImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin)

_TRANSPOSITIONS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DecodeNote(StrEnum):
    """
    What was odd about a picture that could be decoded all the same; these stand in ``ImageFacts.warnings``.
    """

    EXIF_DAMAGED = "EXIF_DAMAGED"
    FRAMES_UNCOUNTED = "FRAMES_UNCOUNTED"
    ICC_DROPPED = "ICC_DROPPED"


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """
    What counts as an image: ``formats`` under Pillow's names, and at most ``max_pixels`` in width times height.
    """

    formats: tuple[str, ...] = tuple(MEDIA_TYPES)
    max_pixels: int = 40_000_000


class PillowDecoder:
    """
    Decodes with Pillow, by content and from an allow-list; any number of threads may call it at once.

    Of an animation, frame 0 is scored and all are counted: an image hidden in a later frame is not seen yet.
    Known hole: libjpeg repairs what it can without telling Pillow, so that a JPEG with damage inside its last scan
    (and its end marker in place) is scored with grey in it.
    """

    def __init__(self, spec: PreprocessSpec, limits: DecodeLimits, perceptual_hash: PerceptualHash | None) -> None:
        missing = [name for name in limits.formats if name not in Image.OPEN or not _supported(name)]
        if missing:
            raise CannotStart(
                f"decode.formats names {', '.join(missing)}, which this build of Pillow ({__version__}) cannot read: "
                "take them off the list, or install Pillow's own wheel"
            )
        # Pillow's limit warns below twice its value, through machinery that threads share; ours is one number and
        # always an error, checked before any pixel is read.
        Image.MAX_IMAGE_PIXELS = None
        self._spec = spec
        self._limits = limits
        self._perceptual_hash = perceptual_hash

    def decode(self, data: bytes, content_hash: ContentHash) -> tuple[Pixels, ImageFacts]:
        """
        The picture at the encoder's input size, uint8[size, size, 3], and what was found in the bytes.

        ``width`` and ``height`` of the facts are those of the file, before its orientation is undone. Raises
        ``UploadFailed`` with FORMAT_UNSUPPORTED, DECODE_BOMB, DECODE_TRUNCATED or DECODE_FAILED.
        """
        name = self._allowed_format(data)
        try:
            return self._decoded(data, name, content_hash)
        except UploadFailed:
            raise
        except Exception as error:
            # Pillow's readers raise whatever the bytes lead them to: a dozen types are seen in the field.
            raise _failure(name, error, cut_short=len(data) < announced_bytes(data)) from error

    def _allowed_format(self, data: bytes) -> str:
        name = format_of(data)
        allowed = ", ".join(self._limits.formats)
        if name is None:
            raise UploadFailed(
                ErrorCode.FORMAT_UNSUPPORTED, f"the bytes are {description_of(data)}; accepted are {allowed}"
            )
        if name not in self._limits.formats:
            raise UploadFailed(ErrorCode.FORMAT_UNSUPPORTED, f"the bytes are {name}; accepted are {allowed}")
        return name

    def _decoded(self, data: bytes, name: str, content_hash: ContentHash) -> tuple[Pixels, ImageFacts]:
        with Image.open(io.BytesIO(data), formats=[name]) as image:
            width, height, mode = *image.size, image.mode
            self._check_pixels(width * height)
            image.load()
            notes: list[DecodeNote] = []
            orientation = _orientation(image, notes)
            flat, alpha = flattened(_upright(image, orientation))
            small, thumbnail = self._reduced(flat, image.info.get("icc_profile"), notes)
            # Counting comes last: in a GIF it moves through the frames.
            frames_total = _frames(image, notes)
        pixels = np.asarray(framed(small, self._spec))
        pdq, quality = self._hashed(thumbnail)
        facts = ImageFacts(
            sha256=content_hash,
            byte_length=len(data),
            format=name,
            width=width,
            height=height,
            mode=mode,
            frames_total=frames_total,
            frames_scored=(0,),
            orientation=orientation,
            alpha=alpha,
            pdq=pdq,
            pdq_quality=quality,
            warnings=tuple(notes),
        )
        return pixels, facts

    def _check_pixels(self, pixels: int) -> None:
        if pixels > self._limits.max_pixels:
            raise UploadFailed(
                ErrorCode.DECODE_BOMB,
                f"the header announces {pixels} pixels, decode.max_pixels allows {self._limits.max_pixels}",
            )

    def _reduced(
        self, flat: Image.Image, profile: bytes | None, notes: list[DecodeNote]
    ) -> tuple[Image.Image, Image.Image | None]:
        """
        The picture resized for the encoder, and reduced for the perceptual hash, both in sRGB.

        Colour comes after size: a profile applied to all the pixels of a phone's photograph costs as much as the rest.
        """
        small = resized(flat, self._spec)
        factor = -(-max(flat.size) // HASHED_SIDE)
        thumbnail = None if self._perceptual_hash is None else flat.reduce(factor) if factor > 1 else flat
        try:
            return in_srgb(small, profile), None if thumbnail is None else in_srgb(thumbnail, profile)
        except ProfileUnusable:
            notes.append(DecodeNote.ICC_DROPPED)
            return in_srgb(small, None), None if thumbnail is None else in_srgb(thumbnail, None)

    def _hashed(self, thumbnail: Image.Image | None) -> tuple[str | None, int | None]:
        if self._perceptual_hash is None or thumbnail is None:
            return None, None
        return self._perceptual_hash(np.asarray(thumbnail))


def decoder_versions() -> dict[str, str]:
    """
    The libraries that turn bytes into pixels, and the version of our own rules; for ``versions.decoder``.
    """
    libraries = ("libjpeg_turbo", "zlib", "webp", "avif", "littlecms2")
    found = {name: features.version(name) for name in libraries}
    known = {name: version for name, version in found.items() if version is not None}
    return {"rules": RULES_VERSION, "pillow": __version__, **known}


def _supported(name: str) -> bool:
    return bool(features.check(name.lower())) if name in ("WEBP", "AVIF") else True


def _orientation(image: Image.Image, notes: list[DecodeNote]) -> int:
    """
    The EXIF orientation, 1 (upright) where there is none or none that the standard knows.
    """
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF raises anything, and says nothing about the pixels
        notes.append(DecodeNote.EXIF_DAMAGED)
        return 1
    return value if isinstance(value, int) and value in _TRANSPOSITIONS else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else image.transpose(_TRANSPOSITIONS[orientation])


def _frames(image: Image.Image, notes: list[DecodeNote]) -> int | None:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001 - what follows the first frame may be damaged in any way; the first was read
        notes.append(DecodeNote.FRAMES_UNCOUNTED)
        return None


def _failure(name: str, error: Exception, *, cut_short: bool) -> UploadFailed:
    """
    The stable code for what Pillow raised, with what it said; addresses of objects, which differ, left out.
    """
    if cut_short:
        return UploadFailed(ErrorCode.DECODE_TRUNCATED, f"the {name} data end before the length that they announce")
    if isinstance(error, UnidentifiedImageError):
        return UploadFailed(ErrorCode.DECODE_FAILED, f"the {name} header is damaged or incomplete")
    said = "".join(letter if letter.isprintable() else " " for letter in str(error))[:200]
    detail = f"the {name} data cannot be read ({type(error).__name__}: {said})"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return UploadFailed(ErrorCode.DECODE_BOMB, detail)
    if isinstance(error, EOFError) or "truncated" in said.lower():
        return UploadFailed(ErrorCode.DECODE_TRUNCATED, detail)
    return UploadFailed(ErrorCode.DECODE_FAILED, detail)
