"""
Decoding in processes and in threads find the same: over the field's odd files, and pictures that Hypothesis draws.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decoding_rig import Rig, decoding, same, setup_of
from tests.pictures import encoded, photograph
from worker.decoding.child import open_decoder
from worker.decoding.child_process import PROGRAM
from worker.decoding.protocol import Setup
from worker.domain import ContentHash
from worker.errors import UploadFailed
from worker.ports import PictureDecoder
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.views import DecodedPicture, ViewSpec

EVERY = 3
"""One odd file of so many: two decoders see each."""


def everything() -> Setup:
    """
    All that a decoder can be asked for.
    """
    asked = setup_of(views=ViewSpec(native_crops=3, realism=True), memory_bytes=1 << 31)
    return Setup(
        asked.spec,
        DecodeLimits(max_frames=4, on_grey=True),
        asked.views,
        memory_bytes=asked.memory_bytes,
        cpu_s=asked.cpu_s,
        pictures=asked.pictures,
        perceptual_hash=True,
        credentials=True,
    )


@pytest.fixture(scope="module")
def children() -> Iterator[Rig]:
    """
    The decoder in processes, of the real program.
    """
    with decoding(everything(), program=PROGRAM) as rig:
        yield rig


@pytest.fixture(scope="module")
def here() -> PillowDecoder:
    """
    The decoder in this process.
    """
    decoder = open_decoder(everything())
    assert isinstance(decoder, PillowDecoder)
    return decoder


def found(decoder: PictureDecoder, data: bytes, content_hash: ContentHash) -> DecodedPicture | tuple[str, str]:
    """
    The picture, or the code and the words of its failure.
    """
    try:
        return decoder.decode(data, content_hash)
    except UploadFailed as failure:
        return failure.code, failure.detail


def agree(one: DecodedPicture | tuple[str, str], other: DecodedPicture | tuple[str, str]) -> bool:
    """
    Whether both are the same picture, or the same failure.
    """
    if isinstance(one, tuple) or isinstance(other, tuple):
        return one == other
    return same(one, other)


@pytest.mark.shared_data
@pytest.mark.slow
def test_odd_files_come_out_the_same(shared_data: Path, children: Rig, here: PillowDecoder) -> None:
    """
    Pixels, crops, statistics, hashes, credentials and warnings to the last bit, or the same failure in the same words.
    """
    differing: list[str] = []
    kinds: Counter[str] = Counter()
    for row in list(csv.DictReader((shared_data / "odd.csv").open(encoding="utf-8")))[::EVERY]:
        data, content_hash = (shared_data / "odd" / row["path"]).read_bytes(), ContentHash(row["sha256"])
        in_process, in_thread = found(children.decoder, data, content_hash), found(here, data, content_hash)
        kinds["failed" if isinstance(in_thread, tuple) else "decoded"] += 1
        if not agree(in_process, in_thread):
            differing.append(f"{row['path']}: {in_process} and {in_thread}")

    assert differing == []
    assert min(kinds["failed"], kinds["decoded"]) > 20
    assert children.endings == []


@settings(max_examples=60, deadline=None)  # the first picture waits for a process
@given(
    name=st.sampled_from(("JPEG", "PNG", "WEBP", "GIF", "AVIF")),
    sides=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    seed=st.integers(0, 1 << 30),
    mode=st.sampled_from(("RGB", "L", "RGBA", "CMYK", "P", "1", "I;16")),
    orientation=st.integers(1, 8),
)
def test_drawn_pictures_come_out_the_same(
    children: Rig,
    here: PillowDecoder,
    *,
    name: str,
    sides: tuple[int, int],
    seed: int,
    mode: str,
    orientation: int,
) -> None:
    """
    Of any format, size, mode and orientation that can be written.
    """
    picture = photograph(*sides, seed=seed)
    exif = picture.getexif()
    exif[0x0112] = orientation
    try:
        data = encoded(picture.convert(mode), name, exif=exif)
    except (OSError, ValueError):
        data = encoded(picture, name, exif=exif)
    content_hash = ContentHash(f"{seed:064x}")

    assert agree(found(children.decoder, data, content_hash), found(here, data, content_hash))
