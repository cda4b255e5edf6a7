"""
What the chunks of a PNG say before anything is decoded: its animation, its EXIF, and the colour that is transparent.

Pillow reads some of these otherwise than browsers do: it drops an animation whose control chunk it doubts, takes colour
and transparency from chunks behind the pixels, and compares scaled pixels to unscaled numbers. So it is given a file in
which these stand as it understands them. Decoding is ``worker/stages/decode.py``.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from schemas.errors import ErrorCode
from worker.errors import UploadFailed

Rgb = tuple[int, int, int]

_SIGNATURE_BYTES: Final = 8
_FRAME_BYTES: Final = 12
"""Length, name and checksum of a chunk."""

_READ: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"acTL"})
"""Of these the content matters, of others only that they are there."""

MOST_CHUNKS: Final = 100_000
"""Of so many nobody makes a picture: going through them would take longer than going through their pixels."""

_ANIMATING: Final = frozenset({b"acTL", b"fcTL", b"fdAT"})
_IGNORED: Final = b"skIp"
"""The name of what is put in place of a chunk that would otherwise lie between chunks of pixels, and part them."""

_GREY, _RGB, _PALETTE = 0, 2, 3
_DEEP: Final = 16


@dataclass(frozen=True, slots=True)
class _Chunk:
    """
    Where a chunk lies: ``start`` of its length, ``end`` behind its checksum, and what is between these.
    """

    kind: bytes
    start: int
    end: int
    body: bytes = field(repr=False)
    intact: bool


@dataclass(frozen=True, slots=True)
class PngReading:
    """
    A PNG as Pillow is to be given it, its EXIF block, and of 16-bit RGB the colour that is transparent.
    """

    data: bytes = field(repr=False)
    exif: bytes | None = field(default=None, repr=False)
    transparent: Rgb | None = None


def read_png(data: bytes) -> PngReading:
    """
    What stands in the chunks of a PNG, by the rules of its third edition as libpng keeps them.

    Parts of an animation that no chunk announces, and the announcement of no frames where there are none, are what
    browsers ignore: such a file is a still picture.
    Raises ``UploadFailed``: DECODE_TRUNCATED for an animation that ends early, DECODE_FAILED for one whose chunks
    contradict each other, of which a browser might show what Pillow hides, and for one in 16-bit RGB with a transparent
    colour, which Pillow cannot put together; DECODE_BOMB for more than ``MOST_CHUNKS`` chunks.
    """
    animation = _Animation()
    colour = _Colour()
    before_pixels = True
    edits: list[tuple[_Chunk, bytes]] = []
    animating: list[tuple[_Chunk, bytes]] = []
    exif: bytes | None = None
    end = _SIGNATURE_BYTES
    for chunk in _chunks(data):
        end = chunk.end
        before_pixels = before_pixels and chunk.kind != b"IDAT"
        animation = animation.with_chunk(chunk, before_pixels=before_pixels)
        if chunk.kind in _ANIMATING:
            animating.append((chunk, _chunk(_IGNORED, b"")))
        if chunk.kind == b"eXIf" and before_pixels and exif is None:
            exif = chunk.body
        replacement = colour.as_pillow_reads(chunk, before_pixels=before_pixels)
        if replacement is not None and chunk.intact:
            edits.append((chunk, replacement))
    if animation.ignored:
        edits = sorted(edits + animating, key=lambda edit: edit[0].start)
    else:
        animation.check(cut=end > len(data), deep=colour.transparent is not None)
    return PngReading(_edited(data, edits), exif, colour.transparent)


@dataclass(slots=True)
class _Colour:
    """
    What the chunks so far say of colour; the first of a kind counts.
    """

    depth: int = 0
    kind: int = -1
    palette_entries: int = 0
    profile: bool = False
    transparency: bool = False
    transparent: Rgb | None = None

    def as_pillow_reads(self, chunk: _Chunk, *, before_pixels: bool) -> bytes | None:
        """
        What is to stand in place of a chunk: None for itself, nothing where browsers ignore it.
        """
        if chunk.kind == b"IHDR" and len(chunk.body) >= 10:  # noqa: PLR2004 - up to the colour type
            self.depth, self.kind = chunk.body[8], chunk.body[9]
        elif chunk.kind == b"PLTE":
            self.palette_entries = len(chunk.body) // 3
        elif chunk.kind == b"iCCP":
            counts = before_pixels and not self.profile and not self.palette_entries
            self.profile = True
            return None if counts else b""
        elif chunk.kind == b"tRNS":
            counts = before_pixels and not self.transparency and self._fits(chunk.body)
            self.transparency = self.transparency or counts
            return self._transparency(chunk.body) if counts else b""
        return None

    def _fits(self, body: bytes) -> bool:
        if self.kind == _PALETTE:
            return 0 < len(body) <= self.palette_entries
        return len(body) == {_GREY: 2, _RGB: 6}.get(self.kind, -1)

    def _transparency(self, body: bytes) -> bytes | None:
        if self.kind == _PALETTE:
            return None
        values = struct.unpack(f">{len(body) // 2}H", body)
        if self.depth == _DEEP:
            if self.kind == _GREY:
                return None
            red, green, blue = values
            self.transparent = red, green, blue
            return b""
        # Only the low bits count. Pillow compares them to pixels that it has brought to 8 bits, but for those of 1 bit.
        most = (1 << self.depth) - 1
        scale = 255 // most if self.depth in (2, 4) else 1
        return _chunk(b"tRNS", struct.pack(f">{len(values)}H", *((value & most) * scale for value in values)))


@dataclass(frozen=True, slots=True)
class _Animation:
    """
    What the chunks so far say of an animation: how many frames each control chunk announces, and how many there are.

    ``first_apart``: the still picture is none of the frames. ``data``: chunks with pixels of frames. ``early``: some of
    these lie before the still picture.
    """

    announced: tuple[int, ...] = ()
    late: bool = False
    frames: int = 0
    data: int = 0
    first_apart: bool = False
    early: bool = False

    def with_chunk(self, chunk: _Chunk, *, before_pixels: bool) -> "_Animation":
        """
        The same with one chunk more.
        """
        if chunk.kind == b"acTL":
            number = int.from_bytes(chunk.body[:4], "big")
            # Two tell as much as a thousand would.
            return replace(self, announced=(*self.announced[:1], number), late=self.late or not before_pixels)
        if chunk.kind == b"fcTL":
            apart = self.first_apart or (self.frames == 0 and not before_pixels)
            return replace(self, frames=self.frames + 1, first_apart=apart)
        if chunk.kind == b"fdAT":
            return replace(self, data=self.data + 1, early=self.early or before_pixels)
        return self

    @property
    def ignored(self) -> bool:
        """
        Whether browsers show a still picture, whatever else is there of an animation.
        """
        return not self.announced or (self.announced == (0,) and self.frames == self.data == 0)

    def check(self, *, cut: bool, deep: bool) -> None:
        """
        Nothing where the chunks of an animation agree; see ``read_png``.
        """
        if cut:
            raise UploadFailed(ErrorCode.DECODE_TRUNCATED, "the PNG data end within the animation that they announce")
        loose = self.frames == 1 and self.data > 0 and not self.first_apart
        if self.announced != (self.frames,) or self.late or self.frames == 0 or loose or self.early:
            announced = " and ".join(map(str, self.announced)) or "none"
            raise UploadFailed(
                ErrorCode.DECODE_FAILED,
                f"the PNG's animation contradicts itself: {len(self.announced)} acTL chunks"
                f"{' (behind the pixels)' if self.late else ''} announce {announced}, {self.frames} frames and "
                f"{self.data} fdAT chunks are there; expected one acTL before the pixels that announces these frames",
            )
        if deep and self.data > 0:
            raise UploadFailed(
                ErrorCode.DECODE_FAILED, "an animated PNG of 16-bit RGB with a transparent colour cannot be read"
            )


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """
    The chunks up to IEND; the last reaches beyond the data where these end within it.
    """
    at, found = _SIGNATURE_BYTES, 0
    while at + 8 <= len(data):
        found += 1
        if found > MOST_CHUNKS:
            raise UploadFailed(ErrorCode.DECODE_BOMB, f"the PNG has more than {MOST_CHUNKS} chunks")
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + _FRAME_BYTES + length
        if kind == b"IEND":
            return
        body = data[at + 8 : end - 4] if kind in _READ else b""
        intact = kind in _READ and data[end - 4 : end] == _checksum(kind, body)
        yield _Chunk(kind, at, end, body, intact)
        at = end


def _checksum(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(kind + body))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + _checksum(kind, body)


def _edited(data: bytes, edits: list[tuple[_Chunk, bytes]]) -> bytes:
    """
    The data with other bytes in place of some chunks, in order.
    """
    if not edits:
        return data
    parts, at = [], 0
    for chunk, replacement in edits:
        parts += [data[at : chunk.start], replacement]
        at = chunk.end
    return b"".join([*parts, data[at:]])
