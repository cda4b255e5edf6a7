"""
Where a plain JPEG ends and what its header says, read from its markers alone (ITU-T T.81, annex B).

Only the plainest kind is recognised: baseline, 8 bits, grey or YCbCr, one scan. Everything else is None here, which
says nothing against a file: ``decode.py`` decodes it, or says what is wrong with it.
"""

import re
import struct
from dataclasses import dataclass, replace
from typing import Final

_START: Final = b"\xff\xd8"
_BASELINE, _TABLES, _RESTARTS, _SCAN, _END = 0xC0, (0xC4, 0xDB), 0xDD, 0xDA, 0xD9
_APPLICATION, _COMMENT, _ADOBE = range(0xE0, 0xF0), 0xFE, 0xEE
_HEADERS: Final = frozenset({*_TABLES, _RESTARTS, _COMMENT, *_APPLICATION})
"""What may stand before the scan beside the frame's own header; a marker that is not among them is not plain."""

_AFTER_SCAN: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The first marker behind coded data: neither a stuffed byte, nor a restart."""

_ADOBE_NAME: Final = b"Adobe"
_ADOBE_YCC: Final = 1
_WHOLE_SCAN: Final = b"\x00\x3f\x00"
"""All frequencies of each block, at full precision."""

_GREY: Final = ((1, 1),)
_SAMPLINGS: Final = frozenset({_GREY, *(((h, v), (1, 1), (1, 1)) for h, v in ((1, 1), (2, 1), (2, 2)))})
"""Grey, 4:4:4, 4:2:2 and 4:2:0: horizontal and vertical samples of each component."""

_YCC_IDS: Final = b"\x01\x02\x03"
_FRAME: Final = struct.Struct(">BHHB")

_MOST_SEGMENTS: Final = 1000
"""Before the scan; a colour profile and metadata in pieces take some 300 at most; millions of empty ones would keep
whoever counts them busy."""


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """
    The frame of a plain JPEG; its coded data begin at the byte ``scan``.
    """

    width: int
    height: int
    grey: bool
    scan: int = 0


@dataclass(frozen=True, slots=True)
class JpegExtent:
    """
    ``end``: so many bytes are the JPEG, its end marker included; what follows is not looked at by anybody.
    """

    width: int
    height: int
    grey: bool
    end: int


def jpeg_extent(data: bytes) -> JpegExtent | None:
    """
    The extent of a plain JPEG that has all its markers; None for every other file.
    """
    header = jpeg_header(data)
    if header is None:
        return None
    found = _AFTER_SCAN.search(data, header.scan)
    if found is None or data[found.start() + 1] != _END:
        return None
    return JpegExtent(header.width, header.height, header.grey, found.end())


def jpeg_header(data: bytes) -> JpegHeader | None:
    """
    What stands before the scan of a plain JPEG, which may be cut off in it; None for every other file.
    """
    if not data.startswith(_START):
        return None
    frame: JpegHeader | None = None
    at = len(_START)
    left = _MOST_SEGMENTS
    while left and at + 4 <= len(data) and data[at] == 0xFF:  # noqa: PLR2004 - every marker begins with it
        left -= 1
        marker, (length,) = data[at + 1], struct.unpack_from(">H", data, at + 2)
        body, at = data[at + 4 : at + 2 + length], at + 2 + length
        if length < 2 or at > len(data):  # noqa: PLR2004 - a length counts itself
            return None
        if marker == _SCAN and frame is not None:
            return replace(frame, scan=at) if _is_whole(body, 1 if frame.grey else 3) else None
        if marker == _BASELINE and frame is None:
            if (frame := _frame(body)) is None:
                return None
        elif marker not in _HEADERS or (marker == _ADOBE and _is_no_ycc(body)):
            return None
    return None


def _frame(body: bytes) -> JpegHeader | None:
    """
    What a frame says that is plain.
    """
    if len(body) < _FRAME.size:
        return None
    bits, height, width, count = _FRAME.unpack_from(body)
    parts = body[_FRAME.size :]
    if bits != 8 or not width or not height or len(parts) != 3 * count:  # noqa: PLR2004 - id, sampling, table
        return None
    sampling = tuple((one >> 4, one & 15) for one in parts[1::3])
    if sampling not in _SAMPLINGS or (count > 1 and parts[::3] != _YCC_IDS):
        return None
    return JpegHeader(width, height, count == 1)


def _is_whole(body: bytes, count: int) -> bool:
    """
    Whether a scan holds every component of the frame, whole.
    """
    return len(body) == 2 * count + 4 and body[0] == count and body.endswith(_WHOLE_SCAN)


def _is_no_ycc(body: bytes) -> bool:
    """
    Whether Adobe's marker says that colours are other than YCbCr, or cannot be read.
    """
    return body.startswith(_ADOBE_NAME) and (len(body) < 12 or body[11] != _ADOBE_YCC)  # noqa: PLR2004 - its last byte
