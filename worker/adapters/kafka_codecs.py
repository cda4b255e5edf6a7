"""
The payload of a record batch, unpacked within a bound, whichever codec its producer chose.

kafka-python unpacks without a bound, and a megabyte of zstd may hold gigabytes. Which records a payload holds is in
``kafka_records.py``.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Final

import lz4.frame  # type: ignore[import-untyped] # has no stubs
import snappy  # type: ignore[import-untyped] # has no stubs
import zstandard

MOST_UNPACKED_BYTES: Final = 128 * 1024 * 1024
"""Far more than producers put into one batch; hardly more than one worker has room for."""

_GZIP_WITH_HEADER: Final = 31
_GZIP_MAGIC: Final = b"\x1f\x8b"
_XERIAL: Final = b"\x82SNAPPY\x00"
_XERIAL_HEAD_BYTES: Final = 16
_LENGTH_BYTES: Final = 4
_VARINT_BITS: Final = 7
_MOST_VARINT_BYTES: Final = 5


class NotUnpacked(ValueError):
    """
    The payload is broken, of no codec that Kafka knows, or larger than the bound; the message says which.
    """


def unpack(codec: int, packed: bytes, most_bytes: int = MOST_UNPACKED_BYTES) -> bytes:
    """
    What was packed; ``codec`` is the number in the attributes of a batch, 0 for none.

    Raises ``NotUnpacked``, and nothing else, whatever the bytes are; never makes more than ``most_bytes`` and a little.
    """
    if codec == 0:
        return packed
    if codec not in _CODECS:
        raise NotUnpacked(f"codec {codec} is none of Kafka's")
    name, unpacked = _CODECS[codec]
    try:
        found = unpacked(packed, most_bytes)
    except NotUnpacked:
        raise
    except Exception as error:
        raise NotUnpacked(f"its {name} payload is broken ({type(error).__name__})") from error
    if len(found) > most_bytes:
        raise NotUnpacked(_too_much(name, most_bytes))
    return found


def _too_much(name: str, most_bytes: int) -> str:
    return f"its {name} payload holds more than {most_bytes} bytes"


def _gzip(packed: bytes, most_bytes: int) -> bytes:
    found = bytearray()
    # Members follow each other; what behind the last one is none, brokers and Java's clients pass over.
    while packed.startswith(_GZIP_MAGIC) and len(found) <= most_bytes:
        member = zlib.decompressobj(_GZIP_WITH_HEADER)
        found += member.decompress(packed, most_bytes + 1 - len(found))
        if not member.eof and len(found) <= most_bytes:
            raise NotUnpacked("its gzip payload ends early")
        packed = member.unused_data
    return bytes(found)


def _snappy(packed: bytes, most_bytes: int) -> bytes:
    if not packed.startswith(_XERIAL):
        return _snappy_block(packed, most_bytes)
    found, at = bytearray(), _XERIAL_HEAD_BYTES
    while at < len(packed):
        length = int.from_bytes(packed[at : at + _LENGTH_BYTES], "big")
        at += _LENGTH_BYTES
        found += _snappy_block(packed[at : at + length], most_bytes - len(found))
        at += length
    return bytes(found)


def _snappy_block(packed: bytes, most_bytes: int) -> bytes:
    # The length comes first, and room for it is taken before anything is unpacked.
    length = 0
    for at, byte in enumerate(packed[:_MOST_VARINT_BYTES]):
        length |= (byte & 0x7F) << (_VARINT_BITS * at)
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that another byte follows
            break
    if length > most_bytes:
        raise NotUnpacked(_too_much("snappy", most_bytes))
    found: bytes = snappy.uncompress(packed)
    return found


def _lz4(packed: bytes, most_bytes: int) -> bytes:
    frame = lz4.frame.LZ4FrameDecompressor()
    found: bytes = frame.decompress(packed, max_length=most_bytes + 1)
    if not frame.eof and len(found) <= most_bytes:
        raise NotUnpacked("its lz4 payload ends early")
    return found


def _zstd(packed: bytes, most_bytes: int) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
        return reader.read(most_bytes + 1)


_CODECS: Final[Mapping[int, tuple[str, Callable[[bytes, int], bytes]]]] = {
    1: ("gzip", _gzip),
    2: ("snappy", _snappy),
    3: ("lz4", _lz4),
    4: ("zstd", _zstd),
}
