"""
HEIF: refused unless it is configured, and configured only where it can be read.
"""

import numpy as np
import pytest

from schemas.errors import ErrorCode
from tests.pictures import ANY_HASH, decoder_of, encoded, photograph
from worker.errors import CannotStart, UploadFailed
from worker.stages import heif
from worker.stages.decode import DecodeLimits
from worker.stages.sniff import MEDIA_TYPES, is_heif

WITH_HEIF = DecodeLimits(formats=(*MEDIA_TYPES, "HEIF"), max_pixels=10_000, max_frames=4)


def heic(width: int, height: int) -> bytes:
    """
    A photograph as HEIC; skips where the extra is not installed.
    """
    pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    assert heif.can_open_heif()
    return encoded(photograph(width, height), "HEIF", quality=95)


def test_a_configured_heic_is_decoded() -> None:
    """
    Pixels near to the picture, facts that name the format, and one frame.
    """
    data = heic(64, 64)
    seen = decoder_of(64, limits=WITH_HEIF).decode(data, ANY_HASH)

    assert is_heif(data)
    assert ("HEIF", 64, 64, (0,)) == (
        seen.facts.format, seen.facts.width, seen.facts.height, seen.facts.frames_scored
    )  # fmt: skip
    assert np.abs(seen.pixels.astype(int) - np.asarray(photograph(64, 64))).mean() < 8


def test_unless_configured_it_is_unsupported() -> None:
    """
    That the library is there changes nothing: the allow-list does.
    """
    data = heic(64, 64)
    with pytest.raises(UploadFailed) as caught:
        decoder_of(64).decode(data, ANY_HASH)

    assert ErrorCode.FORMAT_UNSUPPORTED == caught.value.code
    assert "HEIC" in caught.value.detail


@pytest.mark.parametrize("end", [24, 200, 700])
def test_a_torn_heic_fails(end: int) -> None:
    """
    A prefix is no picture.
    """
    data = heic(64, 64)
    with pytest.raises(UploadFailed) as caught:
        decoder_of(64, limits=WITH_HEIF).decode(data[:end], ANY_HASH)

    assert caught.value.code in {ErrorCode.DECODE_TRUNCATED, ErrorCode.DECODE_FAILED}


def test_a_large_heic_is_a_bomb() -> None:
    """
    The pixel limit holds here too.
    """
    data = heic(128, 128)
    with pytest.raises(UploadFailed) as caught:
        decoder_of(64, limits=WITH_HEIF).decode(data, ANY_HASH)

    assert ErrorCode.DECODE_BOMB == caught.value.code


def test_without_the_extra_a_worker_that_wants_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The refusal names what to install.
    """
    monkeypatch.setattr("worker.stages.heif.find_spec", lambda _: None)

    with pytest.raises(CannotStart, match=r"touchstone-worker\[heic\]"):
        decoder_of(64, limits=WITH_HEIF)
