"""
The pictures of benchmarks: seeded, all different, and as heavy as they claim.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worker.bench.corpus import KINDS, picture, pictures, with_comment, write_pictures, write_variants


@pytest.mark.parametrize(("name", "least_bytes", "most_bytes"), [("20kb", 15_000, 25_000), ("1mp", 80_000, 200_000)])
def test_a_picture_has_the_size_of_its_kind(name: str, least_bytes: int, most_bytes: int) -> None:
    """
    As many pixels as the kind says, and the bytes of a photograph of that size.
    """
    kind = KINDS[name]
    data = [picture(number, kind) for number in range(4)]

    assert {Image.open(io.BytesIO(one)).size for one in data} == {(kind.width, kind.height)}
    assert all(least_bytes <= len(one) <= most_bytes for one in data)


def test_a_number_is_a_seed() -> None:
    """
    The same number gives the same bytes, another one others, in threads as alone.
    """
    kind = KINDS["20kb"]

    assert picture(3, kind) == picture(3, kind)
    assert picture(3, kind) != picture(4, kind)
    assert list(pictures(3, kind, first=2)) == [picture(2, kind), picture(3, kind), picture(4, kind)]


def test_variants_differ_in_bytes_and_not_in_pixels(tmp_path: Path) -> None:
    """
    Behind those that are drawn come the same pictures in other bytes: new to every cache, and as costly as before.
    """
    names = write_variants(tmp_path, 5, KINDS["20kb"], drawn=2)
    data = [(tmp_path / name).read_bytes() for name in names]

    assert len({hashlib.sha256(one).hexdigest() for one in data}) == 5
    first, copy = (np.asarray(Image.open(io.BytesIO(one))) for one in (data[0], data[2]))
    assert np.array_equal(first, copy)


def test_a_comment_leaves_a_jpeg_a_jpeg() -> None:
    """
    The comment stands where a reader finds it.
    """
    commented = with_comment(picture(0, KINDS["20kb"]), b"copy 7")

    assert Image.open(io.BytesIO(commented)).info["comment"] == b"copy 7"


def test_what_is_there_is_not_drawn_again(tmp_path: Path) -> None:
    """
    A second run writes only what is missing.
    """
    names = write_pictures(tmp_path, 2, KINDS["20kb"])
    (tmp_path / names[0]).write_bytes(b"kept")

    assert write_pictures(tmp_path, 3, KINDS["20kb"])[:2] == names
    assert (tmp_path / names[0]).read_bytes() == b"kept"
    assert len(list(tmp_path.iterdir())) == 3
