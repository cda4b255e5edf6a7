"""
Whatever bytes a payload has, a batch gives records in rising order up to its last offset, and raises nothing.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile_batches import CODECS, BytesName, batch_bytes, batch_of
from worker.adapters.kafka_records import records_of

HEADER_BYTES = 61
MOST = 100_000

texts = st.binary(max_size=30)
names = texts.map(BytesName)
records = st.lists(
    st.tuples(st.none() | texts, texts, st.lists(st.tuples(names, texts), max_size=3)),
    min_size=1,
    max_size=5,
)


@given(written=records, codec=st.sampled_from(sorted(CODECS)), changes=st.data())
@pytest.mark.parametrize("cut", [False, True])
def test_no_payload_raises(
    cut: bool,
    written: list[tuple[bytes | None, bytes, list[tuple[BytesName, bytes]]]],
    codec: str,
    changes: st.DataObject,
) -> None:
    """
    Bytes are exchanged, and cut off; each record has an offset of the batch, none is given twice, and the last is told.
    """
    wire = bytearray(batch_bytes(written, codec))
    for _ in range(changes.draw(st.integers(0, 3))):
        wire[changes.draw(st.integers(HEADER_BYTES, len(wire) - 1))] = changes.draw(st.integers(0, 255))
    batch = batch_of(bytes(wire))
    if cut:
        batch._buffer = batch._buffer[: changes.draw(st.integers(HEADER_BYTES, len(wire)))]
    found = list(records_of(batch, MOST))

    offsets = [record.offset for record in found]
    assert sorted(set(offsets)) == offsets
    assert batch.base_offset <= offsets[0]
    assert batch.last_offset == offsets[-1]


@given(written=records, codec=st.sampled_from(sorted(CODECS)))
def test_what_is_untouched_is_read_as_it_was_written(
    written: list[tuple[bytes | None, bytes, list[tuple[BytesName, bytes]]]], codec: str
) -> None:
    """
    Key, value and headers, in their order; names as text where they are text.
    """
    found = list(records_of(batch_of(batch_bytes(written, codec)), MOST))

    assert [(key, value) for key, value, _ in written] == [(record.key, record.value) for record in found]
    told = [[(name.raw.decode(errors="backslashreplace"), value) for name, value in headers] for *_, headers in written]
    assert told == [list(record.headers) for record in found]
    assert list(range(len(written))) == [record.offset for record in found]
