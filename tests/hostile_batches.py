"""
Record batches as no honest producer writes them: bytes in header names, broken and inflated payloads.
"""

from collections.abc import Sequence
from typing import Any, Final, Self

from kafka import TopicPartition
from kafka.record import MemoryRecords
from kafka.record.memory_records import MemoryRecordsBuilder

CODECS: Final = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
AT: Final = TopicPartition("uploads", 0)


class BytesName(str):
    """
    A header name that kafka-python writes as these bytes, whatever they are.
    """

    __slots__ = ("raw",)

    raw: bytes

    def __new__(cls, raw: bytes) -> Self:
        """
        Its text is of no account.
        """
        made = super().__new__(cls, "bytes")
        made.raw = raw
        return made

    def encode(self, *_: object) -> bytes:
        """
        The bytes themselves.
        """
        return self.raw


def batch_bytes(records: Sequence[tuple[bytes | None, bytes | None, list[Any]]], codec: str = "none") -> bytes:
    """
    One batch of (key, value, headers), as it goes over the wire.
    """
    builder = MemoryRecordsBuilder(magic=2, compression_type=CODECS[codec], batch_size=1 << 24)
    for key, value, headers in records:
        assert builder.append(timestamp=1_000, key=key, value=value, headers=headers) is not None
    builder.close()
    return bytes(builder.buffer())


def batch_of(wire: bytes) -> Any:  # noqa: ANN401 - kafka-python is untyped
    """
    kafka-python's view of one batch.
    """
    return MemoryRecords(wire).next_batch()
