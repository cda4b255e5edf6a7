"""
What kafka-python's consumers make of batches that no honest producer writes, once ``read_all_records`` was told.
"""

import tracemalloc
from types import SimpleNamespace
from typing import Any

import kafka.errors as kafka_errors
import pytest
import zstandard
from kafka.consumer.fetcher import Fetcher
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import encode_varint

from tests.hostile_batches import AT, CODECS, BytesName, batch_bytes
from worker.adapters.kafka_records import MOST_HEADERS, fault_of, read_all_records, records_of
from worker.adapters.kafka_source import raw_event
from worker.errors import CannotStart

GOOD = (b"key", b'{"an": "upload"}', [("ce_id", b"1")])
NAMED = (None, b"value", [("ce_id", b"2"), (BytesName(b"\xff\xfea"), b"1")])


def reading(wire: bytes, *, start: int = 0, most_bytes: int = 1_000_000) -> Any:  # noqa: ANN401 - kafka-python is untyped
    """
    What a consumer has fetched of a partition, from offset ``start`` on.
    """
    consumer = SimpleNamespace(_fetcher=SimpleNamespace(PartitionRecords=Fetcher.PartitionRecords))
    read_all_records(consumer, most_bytes=most_bytes)
    return consumer._fetcher.PartitionRecords(start, AT, MemoryRecords(wire), check_crcs=True)


def test_kafka_python_alone_reads_neither_this_record_nor_the_next() -> None:
    """
    The reason for all of this; when this test fails, ``kafka_records`` may be gone without.
    """
    fetched = Fetcher.PartitionRecords(0, AT, MemoryRecords(batch_bytes([GOOD, NAMED, GOOD])))

    assert len(fetched.take(10)) == 1
    with pytest.raises(kafka_errors.CorruptRecordError):
        fetched.take(10)


@pytest.mark.parametrize("codec", CODECS)
def test_a_header_name_of_bytes_costs_only_its_record(codec: str) -> None:
    """
    The others are as they were; it says what is wrong, and has everything else that lay there.
    """
    fetched = reading(batch_bytes([GOOD, NAMED, GOOD], codec))
    first, named, last = (raw_event(record, 0.0) for record in fetched.take(10))

    assert [(0, None, True), (2, None, True)] == [(one.offset, one.fault, one.whole) for one in (first, last)]
    assert (GOOD[0], GOOD[1], tuple(GOOD[2])) == (last.key, last.value, last.headers)
    assert named.fault is not None
    assert "header name: found b'\\xff\\xfea'" in named.fault
    assert (1, b"value", False) == (named.offset, named.value, named.whole)
    assert (("ce_id", b"2"), ("\\xff\\xfea", b"1")) == named.headers
    assert fetched.next_fetch_offset == 3


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec != "none"])
def test_a_batch_that_cannot_be_unpacked_is_told_of_at_its_first_and_last_offset(codec: str) -> None:
    """
    Which say what lies between them; reading goes on behind it, also for whoever begins within it.
    """
    wire = batch_bytes([(None, bytes(5_000), [])] * 5, codec)
    fetched = reading(wire, most_bytes=1_000)
    records = fetched.take(10)

    assert [0, 4] == [record.offset for record in records]
    assert [None] * 2 == [record.value for record in records]
    told = [fault_of(record.headers) or "" for record in records]
    assert all("offsets 0 to 4" in one and "cannot be unpacked" in one for one in told)
    assert [4] == [record.offset for record in reading(wire, start=2, most_bytes=1_000).take(10)]
    assert 5 == fetched.next_fetch_offset


def test_one_record_that_cannot_be_unpacked_is_told_of_once() -> None:
    """
    Its first offset is its last.
    """
    (record,) = reading(batch_bytes([(None, bytes(5_000), [])], "zstd"), most_bytes=1_000).take(10)

    assert (fault_of(record.headers) or "").startswith("record: the batch")


@pytest.mark.parametrize("payload", [b"\x0c\0\0\0\1\1\0", b""])
def test_a_batch_of_millions_that_cannot_be_read_is_two_records(payload: bytes) -> None:
    """
    Twenty million dead letters from a few kilobytes would keep a group busy for a day.
    """
    count = 20_000_000
    packed = zstandard.compress(payload * count if payload else bytes(1_000))
    records = list(records_of(raw_batch(packed, count, codec=4), 100_000_000))

    assert len(packed) < 20_000
    assert [0, count - 1] == [record.offset for record in records]


@pytest.mark.parametrize("count", [MOST_HEADERS + 1, 4_000_000])
def test_headers_without_end_cost_no_memory(count: int) -> None:
    """
    Two bytes each, eighty once they are read; the record says how many there were, and the next is as it was.
    """
    wire = record_bytes(0, headers=b"\0\1" * count, count=count) + record_bytes(1)
    batch = raw_batch(zstandard.compress(wire), 2, codec=4)
    tracemalloc.start()
    try:
        many, last = records_of(batch, len(wire))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert f"headers: found {count}, expected at most {MOST_HEADERS}" == fault_of(many.headers)
    assert (b"key", b"value", []) == (many.key, many.value, list(many.headers))
    assert (1, None) == (last.offset, fault_of(last.headers))
    # What was unpacked, as it is and within the codec.
    assert peak_bytes < 3 * len(wire) + 1_000_000


def test_as_many_headers_as_are_allowed_are_read() -> None:
    """
    One fewer than too many.
    """
    wire = record_bytes(0, headers=b"\2a\1" * MOST_HEADERS, count=MOST_HEADERS)
    (record,) = records_of(raw_batch(wire, 1), 100_000)

    assert [("a", None)] * MOST_HEADERS == record.headers
    assert fault_of(record.headers) is None


@pytest.mark.parametrize(
    ("headers", "count", "found"),
    [
        pytest.param(b"\1\1", 1, "a header without a name", id="negative length of a name"),
        pytest.param(b"\2a", 1, "a part of", id="a value that lies in the next record"),
        pytest.param(b"\2a", -1, "-1 headers", id="negative count"),
    ],
)
def test_headers_that_are_none_of_kafkas_are_told(headers: bytes, count: int, found: str) -> None:
    """
    Where the next record begins is not believed either.
    """
    wire = record_bytes(0) + record_bytes(1, headers=headers, count=count) + record_bytes(2)
    first, second, last = records_of(raw_batch(wire, 3), 100_000)

    assert fault_of(first.headers) is None
    assert [1, 2] == [second.offset, last.offset]
    assert found in (fault_of(second.headers) or "")


@pytest.mark.parametrize(("offsets", "read"), [((3, 1, 2), [3, 4, 9]), ((0, 0), [0, 1, 9]), ((9, 9), [9])])
def test_offsets_only_rise(offsets: tuple[int, ...], read: list[int]) -> None:
    """
    Brokers do not look at them in what is not packed; whoever releases one twice, or after a later one, ends.
    """
    batch = raw_batch(b"".join(map(record_bytes, offsets)), len(offsets), last=9)

    assert read == [record.offset for record in records_of(batch, 100_000)]


def raw_batch(payload: bytes, count: int, *, codec: int = 0, last: int | None = None) -> Any:  # noqa: ANN401 - as kafka-python's
    """
    A batch that begins with offset 0 and says that it holds ``count`` records.
    """
    return SimpleNamespace(
        _buffer=bytearray(DefaultRecordBatch.HEADER_STRUCT.size) + payload,
        compression_type=codec,
        records_count=count,
        base_offset=0,
        last_offset=count - 1 if last is None else last,
        first_timestamp=0,
        max_timestamp=0,
        timestamp_type=0,
    )


def record_bytes(offset: int, *, headers: bytes = b"", count: int = 0) -> bytes:
    """
    A record that says that it holds ``count`` headers.
    """
    body = bytes(2) + varint(offset) + varint(3) + b"key" + varint(5) + b"value" + varint(count) + headers
    return varint(len(body)) + body


def varint(number: int) -> bytes:
    """
    As Kafka writes one.
    """
    found = bytearray()
    encode_varint(number, found.append)
    return bytes(found)


def test_what_lies_before_the_asked_offset_is_not_given_again() -> None:
    """
    A batch comes whole, also where its first records were read before.
    """
    records = reading(batch_bytes([NAMED, NAMED, GOOD]), start=1).take(10)

    assert [1, 2] == [record.offset for record in records]


def test_a_few_at_a_time_are_all() -> None:
    """
    As a poll with little room takes them.
    """
    fetched = reading(batch_bytes([GOOD, NAMED] * 3, "zstd"))
    taken = [[record.offset for record in fetched.take(2)] for _ in range(3)]

    assert [[0, 1], [2, 3], [4, 5]] == taken


def test_a_checksum_that_does_not_fit_still_ends_the_worker() -> None:
    """
    That is no producer's doing but a broken disk's or wire's, and nothing of the batch is to be believed.
    """
    wire = bytearray(batch_bytes([GOOD]))
    wire[-1] ^= 1
    with pytest.raises(kafka_errors.CorruptRecordError, match="crc"):
        reading(bytes(wire)).take(10)


def test_a_client_that_reads_elsewhere_is_refused() -> None:
    """
    Rather than a worker that the first such record would stop.
    """
    with pytest.raises(CannotStart, match=r"3\.0"):
        read_all_records(SimpleNamespace())
