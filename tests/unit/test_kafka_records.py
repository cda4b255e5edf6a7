"""
What kafka-python's consumers make of batches that no honest producer writes, once ``read_all_records`` was told.
"""

from types import SimpleNamespace
from typing import Any

import kafka.errors as kafka_errors
import pytest
from kafka.consumer.fetcher import Fetcher
from kafka.record import MemoryRecords

from tests.hostile_batches import AT, CODECS, BytesName, batch_bytes
from worker.adapters.kafka_records import fault_of, read_all_records
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
def test_a_batch_that_cannot_be_unpacked_is_a_fault_for_each_of_its_records(codec: str) -> None:
    """
    None of its offsets is passed over, and what lies behind it is read.
    """
    wire = batch_bytes([(None, bytes(5_000), [])] * 3, codec)
    records = reading(wire, most_bytes=1_000).take(10)

    assert [0, 1, 2] == [record.offset for record in records]
    assert [None] * 3 == [record.value for record in records]
    assert all("cannot be unpacked" in (fault_of(record.headers) or "") for record in records)


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
