"""
What some bytes are, from their first few: magic numbers only, nothing is parsed.

Names have nothing to do with it: an uploader chooses a name, a decoder must be chosen by content. Decoding itself is
``worker/stages/decode.py``.
"""

from typing import Final

MEDIA_TYPES: Final = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "AVIF": "image/avif",
}
"""Every format that can always be decoded, under Pillow's name, with its media type."""

HEIF: Final = "HEIF"
"""The format that can be decoded where an extra is installed, under Pillow's name."""

_AVIF_BRANDS: Final = (b"avif", b"avis")
_BOX_BRANDS: Final = {
    b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"heim": "HEIC", b"heis": "HEIC", b"mif1": "HEIF",
    b"msf1": "HEIF", b"jxl ": "JPEG XL", b"jp2 ": "JPEG 2000", b"qt  ": "QuickTime video",
}  # fmt: skip
_OTHERS: Final = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"8BPS", "Photoshop"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"\0\0\x01\0", "ICO"),
    (b"\0\0\x02\0", "CUR"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"RIFF", "a RIFF file, such as sound or video"),
    (b"\x1aE\xdf\xa3", "Matroska video"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
)


def format_of(data: bytes) -> str | None:
    """
    The decodable format that these bytes claim to be, under Pillow's name; None when they claim none but HEIF.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and any(brand in _AVIF_BRANDS for brand in _brands(data)):
        return "AVIF"
    return None


def is_heif(data: bytes) -> bool:
    """
    Whether these bytes claim to be HEIF or HEIC, one still picture or several.
    """
    return data[4:8] == b"ftyp" and format_of(data) is None and _BOX_BRANDS.get(data[8:12]) in ("HEIC", "HEIF")


def description_of(data: bytes) -> str:
    """
    What bytes of no decodable format seem to be, for the uploader's information.
    """
    if data[4:8] == b"ftyp":
        return _BOX_BRANDS.get(data[8:12], "an ISO media file, such as a video")
    for magic, name in _OTHERS:
        if data.startswith(magic):
            return name
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head:
        return "SVG"
    if head.startswith(b"<"):
        return "markup, such as an HTML page"
    return "no known image format"


def announced_bytes(data: bytes) -> int:
    """
    How many bytes the file says that it has; 0 where its format does not say (all but WEBP and AVIF).
    """
    if data.startswith(b"RIFF"):
        return 8 + int.from_bytes(data[4:8], "little")
    if data[4:8] != b"ftyp":
        return 0
    end = 0
    while end + 8 <= len(data):
        box = int.from_bytes(data[end : end + 4], "big")
        # 1: a 64-bit length follows the type; 0: up to the end of the file (ISO/IEC 14496-12, 4.2).
        box = int.from_bytes(data[end + 8 : end + 16], "big") if box == 1 else box
        if box < 8:  # noqa: PLR2004 - the length of a box's own header
            return 0
        end += box
    return end


def _brands(data: bytes) -> list[bytes]:
    """
    The major and the compatible brands of an ISO base media file (ISO/IEC 14496-12, 4.3).
    """
    end = min(int.from_bytes(data[:4], "big"), len(data), 512)
    return [data[8:12], *(data[start : start + 4] for start in range(16, end - 3, 4))]
