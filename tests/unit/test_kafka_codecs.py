"""
Payloads of batches: every codec of Kafka's, broken ones, and ones that hold far more than they weigh.
"""

import gzip
import tracemalloc

import lz4.frame  # type: ignore[import-untyped] # has no stubs
import pytest
import snappy  # type: ignore[import-untyped] # has no stubs
import zstandard
from kafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode

from worker.adapters.kafka_codecs import NotUnpacked, unpack

TEXT = b"an upload " * 5_000
MOST = 1_000_000
PACKED = {
    "gzip": (1, gzip_encode(TEXT)),
    "two members of gzip": (1, gzip.compress(TEXT[:1_000]) + gzip.compress(TEXT[1_000:])),
    "gzip with a tail": (1, gzip_encode(TEXT) + b"what brokers do not look at"),
    "snappy as Java writes it": (2, snappy_encode(TEXT)),
    "snappy as librdkafka writes it": (2, snappy.compress(TEXT)),
    "lz4": (3, lz4_encode(TEXT)),
    "lz4 of linked blocks": (3, lz4.frame.compress(TEXT)),
    "zstd": (4, zstd_encode(TEXT)),
    "two frames of zstd": (4, zstandard.compress(TEXT[:1_000]) + zstandard.compress(TEXT[1_000:])),
    "none": (0, TEXT),
}


@pytest.mark.parametrize("kind", PACKED)
def test_what_was_packed_comes_out(kind: str) -> None:
    """
    Whichever codec a producer chose, and whichever way of using it.
    """
    codec, packed = PACKED[kind]

    assert TEXT == unpack(codec, packed, MOST)


@pytest.mark.parametrize("kind", [kind for kind in PACKED if kind != "none"])
def test_no_more_than_the_bound_comes_out(kind: str) -> None:
    """
    One byte more than may come out is refused; exactly as much is not.
    """
    codec, packed = PACKED[kind]

    assert TEXT == unpack(codec, packed, len(TEXT))
    with pytest.raises(NotUnpacked, match="holds more than"):
        unpack(codec, packed, len(TEXT) - 1)


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a_bomb_takes_no_room(codec: int) -> None:
    """
    Of a payload that holds 200 MB hardly more is unpacked than the bound.
    """
    much = bytes(200_000_000)
    packed = {1: gzip.compress, 2: snappy.compress, 3: lz4.frame.compress, 4: zstandard.compress}[codec](much)
    del much
    tracemalloc.start()
    with pytest.raises(NotUnpacked, match="holds more than"):
        unpack(codec, packed, MOST)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 4 * MOST


@pytest.mark.parametrize("kind", [kind for kind in PACKED if kind != "none"])
def test_a_payload_that_ends_early_is_told(kind: str) -> None:
    """
    A part of it is not taken for the whole; of zstd comes what there is, whose last record then ends too early.
    """
    codec, packed = PACKED[kind]
    if "zstd" in kind:
        assert len(unpack(codec, packed[: len(packed) // 3], MOST)) < len(TEXT)
        return
    with pytest.raises(NotUnpacked):
        unpack(codec, packed[: len(packed) // 3], MOST)


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_a_codec_that_nobody_knows_is_told(codec: int) -> None:
    """
    The attributes have room for numbers that Kafka does not use.
    """
    with pytest.raises(NotUnpacked, match=f"codec {codec}"):
        unpack(codec, TEXT, MOST)
