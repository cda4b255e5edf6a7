"""
Records as strangers write them, read one by one: what kafka-python refuses to read stops nobody.

kafka-python 3.0.12 raises out of ``poll``, again and again, for a header whose name is no UTF-8 and for a payload that
it cannot unpack, and so one record ends every worker of the group. Here it becomes a record that says what is wrong
with it. Codecs and their bounds are in ``kafka_codecs.py``.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from kafka.consumer.fetcher import Fetcher
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint

from worker.adapters.kafka_codecs import MOST_UNPACKED_BYTES, NotUnpacked, unpack
from worker.errors import CannotStart

_MAGIC: Final = 2
_MOST_TIMESTAMP_MS: Final = 2**63 - 1
_SHOWN_BYTES: Final = 40

Headers = list[tuple[str, bytes | None]]


class DoubtfulHeaders(Headers):
    """
    The headers of a record that is not as it lay there; ``fault`` says what is wrong with it, for an operator.
    """

    def __init__(self, headers: Headers, fault: str) -> None:
        super().__init__(headers)
        self.fault = fault


def fault_of(headers: object) -> str | None:
    """
    What is wrong with the record of these headers; None where it is as it lay there.
    """
    return headers.fault if isinstance(headers, DoubtfulHeaders) else None


def read_all_records(consumer: Any, *, most_bytes: int = MOST_UNPACKED_BYTES) -> None:  # noqa: ANN401 - kafka-python is untyped
    """
    From now on this consumer's polls give a record for every offset, also for what cannot be read.

    ``most_bytes`` is how much one batch may hold unpacked. Raises ``CannotStart`` with a kafka-python that reads
    elsewhere: there is no public way to do this.
    """
    fetcher: Any = getattr(consumer, "_fetcher", None)
    if not hasattr(fetcher, "PartitionRecords"):
        raise CannotStart("kafka-python reads records in another way than 3.0; install kafka-python 3.0.12")
    fetcher.PartitionRecords = partial(_PartitionRecords, most_bytes=most_bytes)


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc] # kafka-python is untyped
    """
    What was fetched of one partition. Checksums, aborted transactions and positions stay kafka-python's affair.
    """

    def __init__(self, *fetched: Any, most_bytes: int, **options: Any) -> None:  # noqa: ANN401 - kafka-python is untyped
        self._most_bytes = most_bytes
        super().__init__(*fetched, **options)

    def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Any:  # noqa: ANN401 - kafka-python is untyped
        return super()._unpack_records(tp, _Batches(records, self._most_bytes), *deserializers)


class _Batches:
    def __init__(self, records: Any, most_bytes: int) -> None:  # noqa: ANN401 - kafka-python is untyped
        self._records = records
        self._most_bytes = most_bytes

    def next_batch(self) -> Any:  # noqa: ANN401 - kafka-python is untyped
        """
        The next batch; None behind the last. Only brokers write control batches, and brokers are trusted.
        """
        batch = self._records.next_batch()
        if batch is None or batch.magic != _MAGIC or batch.is_control_batch:
            return batch
        return _Batch(batch, self._most_bytes)


class _Batch:
    def __init__(self, batch: Any, most_bytes: int) -> None:  # noqa: ANN401 - kafka-python is untyped
        self._batch = batch
        self._most_bytes = most_bytes

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else kafka-python asks of a batch
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[DefaultRecord]:
        return records_of(self._batch, self._most_bytes)


def records_of(batch: Any, most_bytes: int) -> Iterator[DefaultRecord]:  # noqa: ANN401 - kafka-python is untyped
    """
    As many records as the batch says it holds, each as far as it can be read.
    """
    try:
        packed = bytes(memoryview(batch._buffer)[DefaultRecordBatch.HEADER_STRUCT.size :])  # noqa: SLF001 - no other way to it
        payload = unpack(batch.compression_type, packed, most_bytes)
    except NotUnpacked as fault:
        yield from _unread(batch, 0, f"record: the batch that it lies in cannot be unpacked: {fault}")
        return
    at = 0
    for index in range(batch.records_count):
        try:
            record, at = _record(batch, payload, at)
        except (ValueError, IndexError) as fault:
            # Where the next one begins is not known either.
            yield from _unread(batch, index, f"record: found bytes that are no record of Kafka's: {fault}")
            return
        yield record


def _unread(batch: Any, first: int, fault: str) -> Iterator[DefaultRecord]:  # noqa: ANN401 - kafka-python is untyped
    headers = DoubtfulHeaders([], fault)
    for index in range(first, batch.records_count):
        offset = min(batch.base_offset + index, batch.last_offset)
        yield DefaultRecord(0, offset, batch.max_timestamp, batch.timestamp_type, None, None, headers)


def _record(batch: Any, payload: bytes, at: int) -> tuple[DefaultRecord, int]:  # noqa: ANN401 - kafka-python is untyped
    """
    The record that begins at ``at``, and where it ends. Raises ``ValueError`` or ``IndexError`` where there is none.
    """
    length, begin = decode_varint(payload, at)
    end = begin + length
    if not begin < end <= len(payload):
        raise ValueError(f"length {length}, where {len(payload) - begin} bytes are left")
    # Before it come the attributes, of which Kafka uses none.
    delta_ms, at = decode_varint(payload, begin + 1)
    offset_delta, at = decode_varint(payload, at)
    key, at = _sized(payload, at, end)
    value, at = _sized(payload, at, end)
    headers, at = _headers(payload, at, end)
    if at != end:
        raise ValueError(f"length {length}, where its parts have {at - begin} bytes")
    timestamp_ms = batch.max_timestamp if batch.timestamp_type else batch.first_timestamp + delta_ms
    if abs(timestamp_ms) > _MOST_TIMESTAMP_MS:
        timestamp_ms = -1
    offset = batch.base_offset + offset_delta
    if not batch.base_offset <= offset <= batch.last_offset:
        raise ValueError(f"offset {offset}, where the batch ends with {batch.last_offset}")
    return DefaultRecord(length, offset, timestamp_ms, batch.timestamp_type, key, value, headers), end


def _headers(payload: bytes, at: int, end: int) -> tuple[Headers, int]:
    count, at = decode_varint(payload, at)
    if count < 0:
        raise ValueError(f"{count} headers")
    headers: Headers = []
    fault = None
    for _ in range(count):
        name, at = _sized(payload, at, end)
        value, at = _sized(payload, at, end)
        try:
            headers.append(((name or b"").decode(), value))
        except UnicodeDecodeError:
            headers.append(((name or b"").decode(errors="backslashreplace"), value))
            fault = f"header name: found {(name or b'')[:_SHOWN_BYTES]!r}, which is no UTF-8, expected text"
    return headers if fault is None else DoubtfulHeaders(headers, fault), at


def _sized(payload: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(payload, at)
    if length < 0:
        return None, at
    if at + length > end:
        raise ValueError(f"a part of {length} bytes, where {end - at} are left")
    return payload[at : at + length], at + length
