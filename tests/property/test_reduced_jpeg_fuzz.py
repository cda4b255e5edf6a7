"""
Damaged JPEGs at reduced scale: pixels or a code of decoding, as at full scale.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import Stage, stage_of
from tests.pictures import ANY_HASH, encoded, photograph, spec_of
from worker.adapters.perceptual_hash import pdq
from worker.errors import UploadFailed
from worker.stages.decode import DecodeLimits, PillowDecoder

SIDE = 32
PICTURE = photograph(307, 211)
FILES = (
    encoded(PICTURE, "JPEG", quality=80),
    encoded(PICTURE, "JPEG", quality=80, progressive=True),
    encoded(PICTURE.convert("CMYK"), "JPEG", quality=80, restart_marker_blocks=8),
    encoded(PICTURE.convert("L"), "JPEG", quality=80),
)
DECODER = PillowDecoder(spec_of(SIDE, jpeg_oversampling=1), DecodeLimits(max_pixels=1_000_000), pdq)

damage = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6)


def ended(data: bytes) -> tuple[int, ...] | Stage:
    """
    The shape of the pixels, or the stage at which the file failed.
    """
    try:
        return DECODER.decode(data, ANY_HASH).pixels.shape
    except UploadFailed as failure:
        return stage_of(failure.code)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FILES), damage, st.floats(0.05, 1))
def test_damaged_files_end_as_pixels_or_a_decode_code(
    data: bytes, changes: list[tuple[float, int]], kept: float
) -> None:
    """
    Bytes changed anywhere, the headers among them, and the end cut off.
    """
    damaged = bytearray(data)
    for where, value in changes:
        damaged[3 + int(where * (len(data) - 3))] = value
    ending = ended(bytes(damaged[: int(kept * len(data))]))

    assert ending in {(SIDE, SIDE, 3), Stage.DECODE}
