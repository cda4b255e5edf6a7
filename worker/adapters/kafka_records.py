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

MOST_HEADERS: Final = 1_000
"""
Events have ten. An empty header weighs two bytes and takes eighty once it is read, so that a record of twelve
kilobytes, unpacked, may hold what takes five gigabytes.
"""

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
    From now on this consumer's polls give every record that can be read, and say what cannot: see ``records_of``.

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
    The records of a batch, in rising order of their offsets, each as far as it can be read.

    Where a batch cannot be unpacked, or from a place on holds no records, the first and the last offset of what is
    unknown get a record that says so, and none between them does: twelve kilobytes may hold twenty million. Offsets
    have gaps in any case, where a topic is compacted. The last is given for whoever reads on from within.
    """
    if batch.records_count <= 0:
        return
    try:
        packed = bytes(memoryview(batch._buffer)[DefaultRecordBatch.HEADER_STRUCT.size :])  # noqa: SLF001 - no other way to it
        payload = unpack(batch.compression_type, packed, most_bytes)
    except NotUnpacked as fault:
        yield from _unread(batch, batch.base_offset, f"the batch that they lie in cannot be unpacked: {fault}")
        return
    at, least = 0, batch.base_offset
    for _ in range(batch.records_count):
        try:
            record, at = _record(batch, payload, at, least)
        except (ValueError, IndexError) as fault:
            # Where the next one begins is not known either.
            yield from _unread(batch, least, f"found bytes that are no record of Kafka's: {fault}")
            return
        yield record
        least = record.offset + 1


def _unread(batch: Any, first: int, fault: str) -> Iterator[DefaultRecord]:  # noqa: ANN401 - kafka-python is untyped
    last = batch.last_offset
    headers = DoubtfulHeaders([], f"record: offsets {first} to {last} are told of by these two alone: {fault}")
    if first == last:
        headers.fault = f"record: {fault}"
    # None where the batch counts more records than it has offsets.
    for offset in sorted({first, last}) if first <= last else ():
        yield DefaultRecord(0, offset, batch.max_timestamp, batch.timestamp_type, None, None, headers)


def _record(batch: Any, payload: bytes, at: int, least: int) -> tuple[DefaultRecord, int]:  # noqa: ANN401 - kafka-python is untyped
    """
    The record that begins at ``at``, and where it ends; its offset is ``least`` or more.

    Raises ``ValueError`` or ``IndexError`` where there is none.
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
    # Whoever was given a record is given none before it, nor itself again: the ledger of what is released would end.
    if not least <= offset <= batch.last_offset:
        raise ValueError(f"offset {offset}, expected one from {least} to {batch.last_offset}")
    return DefaultRecord(length, offset, timestamp_ms, batch.timestamp_type, key, value, headers), end


def _headers(payload: bytes, at: int, end: int) -> tuple[Headers, int]:
    count, at = decode_varint(payload, at)
    if count < 0:
        raise ValueError(f"{count} headers")
    if count > MOST_HEADERS:
        return DoubtfulHeaders([], f"headers: found {count}, expected at most {MOST_HEADERS}"), end
    headers: Headers = []
    fault = None
    for _ in range(count):
        name, at = _sized(payload, at, end)
        if name is None:
            raise ValueError("a header without a name")
        value, at = _sized(payload, at, end)
        try:
            headers.append((name.decode(), value))
        except UnicodeDecodeError:
            headers.append((name.decode(errors="backslashreplace"), value))
            fault = f"header name: found {name[:_SHOWN_BYTES]!r}, which is no UTF-8, expected text"
    return headers if fault is None else DoubtfulHeaders(headers, fault), at


def _sized(payload: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(payload, at)
    if at + max(length, 0) > end:
        raise ValueError(f"a part of {length} bytes, where {end - at} are left")
    if length < 0:
        return None, at
    return payload[at : at + length], at + length
