"""
JPEGs that are not decoded here but left to a device: which ones, and what is told of them instead of pixels.

The bytes are still opened here, so that format, size, orientation, colour profile and credentials are read where all
hostile bytes are read, and what the headers tell to be refused is refused by ``decode.py``. What a device makes of the
rest is ``worker/adapters/device_jpeg.py``.
"""

from dataclasses import dataclass, field
from typing import Final

from PIL.JpegImagePlugin import JpegImageFile

from schemas.verdict import ImageFacts
from worker.domain import ContentHash, PreprocessSpec
from worker.stages.colour import is_srgb
from worker.stages.decode import CredentialsReader, DecodeLimits, PillowDecoder
from worker.stages.decode_notes import DecodeNote
from worker.stages.jpeg_extent import jpeg_extent
from worker.stages.opened import opened
from worker.stages.reduced_jpeg import looks_at_the_whole_alone
from worker.stages.sniff import format_of
from worker.views import DecodedPicture, Undecoded, ViewSpec

JPEG: Final = "JPEG"

LONGEST_SIDE_PX: Final = 16_384
"""Of pictures that are left to a device: what decodes JPEGs in hardware takes no longer ones."""

LEAST_SIDE_PX: Final = 64
"""Smaller ones cost next to nothing here, and decoders in hardware refuse some of them."""


def pixels_left(preprocess: PreprocessSpec, views: ViewSpec, device_bytes: int) -> int:
    """
    How many pixels a JPEG may have that is left to the device; 0 where none is.

    That is under a spec that says so, and where views look at the whole picture alone: crops, statistics and one
    re-encoding for all are made of the file's own pixels, which are then here and not on the device.
    """
    if preprocess.jpeg_decoder == "pillow" or not looks_at_the_whole_alone(views):
        return 0
    return device_bytes // 3


@dataclass(frozen=True, slots=True)
class LeavingJpegs:
    """
    Decodes what ``decoder`` decodes, and leaves plain JPEGs of at most ``most_pixels`` undecoded.

    ``limits`` and ``credentials`` are the decoder's own.
    """

    decoder: PillowDecoder
    limits: DecodeLimits
    credentials: CredentialsReader | None = field(repr=False)
    most_pixels: int

    def decode(self, data: bytes, content_hash: ContentHash) -> DecodedPicture | Undecoded:
        """
        As ``PillowDecoder.decode``, for all that is not left to the device; raises what that raises.
        """
        found = self._left(data, content_hash)
        return self.decoder.decode(data, content_hash) if found is None else found

    def _left(self, data: bytes, content_hash: ContentHash) -> Undecoded | None:
        if JPEG not in self.limits.formats or format_of(data) != JPEG:
            return None
        extent = jpeg_extent(data)
        if extent is None or not self._is_of_size(extent.width, extent.height):
            return None
        try:
            facts = _facts(data, content_hash, (extent.width, extent.height), grey=extent.grey)
        except Exception:  # noqa: BLE001 - the decoder finds the same, and says what it is
            return None
        if facts is None:
            return None
        if self.credentials is not None:
            facts = facts.model_copy(update={"credentials": self.credentials(data)})
        return Undecoded(facts, extent.end)

    def _is_of_size(self, width: int, height: int) -> bool:
        if min(width, height) < LEAST_SIDE_PX or max(width, height) > LONGEST_SIDE_PX:
            return False
        return width * height <= min(self.most_pixels, self.limits.max_pixels)


def _facts(data: bytes, content_hash: ContentHash, size: tuple[int, int], *, grey: bool) -> ImageFacts | None:
    """
    The facts that decoding would find; None where Pillow reads the file otherwise than its markers were read.
    """
    mode = "L" if grey else "RGB"
    with opened(data, JPEG) as file:
        image = file.image
        # Pillow's class for files of several pictures is another one, and those are looked at frame by frame.
        if type(image) is not JpegImageFile or image.size != size or image.mode != mode:
            return None
        profile = image.info.get("icc_profile")
        if profile is not None and (grey or not is_srgb(profile)):
            return None
        orientation, whole = file.orientation()
    return ImageFacts(
        sha256=content_hash,
        byte_length=len(data),
        format=JPEG,
        width=size[0],
        height=size[1],
        mode=mode,
        frames_total=1,
        frames_scored=(0,),
        orientation=orientation,
        alpha="none",
        warnings=() if whole else (DecodeNote.EXIF_DAMAGED,),
    )
