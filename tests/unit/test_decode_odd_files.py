"""
Decode on the field's odd files: every mode, format, truncation and bomb that Pillow's own tests collected.
"""

import csv
from collections import Counter
from pathlib import Path

import pytest

from schemas.errors import ErrorCode, Stage, stage_of
from tests.pictures import decoder_of
from worker.adapters.perceptual_hash import pdq
from worker.domain import ContentHash
from worker.errors import UploadFailed
from worker.stages.sniff import MEDIA_TYPES

ACCEPTED = {*MEDIA_TYPES, "MPO"}  # an MPO is a JPEG with more pictures behind the first

HIDING = {
    "pillow/59068aa0_chunk_multi_actl.png",
    "pillow/a50d974c_chunk_repeat_fctl.png",
    "pillow/f36dbc29_syntax_num_frames_low.png",
}
"""Animations of which Pillow shows a part, because their chunks contradict each other."""


@pytest.mark.shared_data
def test_every_odd_file_ends_as_pixels_or_a_decode_code(shared_data: Path) -> None:
    """
    What Pillow can read of the accepted formats is decoded, all else fails with a code; nothing escapes.

    All but the animations of which it shows only a part.
    """
    decoder = decoder_of(64, perceptual_hash=pdq)
    codes: Counter[str] = Counter()
    surprises: list[str] = []
    for row in csv.DictReader((shared_data / "odd.csv").open(encoding="utf-8")):
        data = (shared_data / "odd" / row["path"]).read_bytes()
        readable = row["pillow_format"] in ACCEPTED and row["pillow_result"] == "ok" and row["path"] not in HIDING
        try:
            pixels = decoder.decode(data, ContentHash(row["sha256"])).pixels
        except UploadFailed as error:
            codes[error.code] += 1
            if stage_of(error.code) is not Stage.DECODE or (readable and error.code is not ErrorCode.DECODE_BOMB):
                surprises.append(f"{row['path']}: {error}")
        else:
            codes["decoded"] += 1
            if pixels.shape != (64, 64, 3):
                surprises.append(f"{row['path']}: {pixels.shape}")

    assert [] == surprises
    of_processes = {ErrorCode.DECODE_TIMEOUT, ErrorCode.DECODE_CRASHED}
    assert {"decoded", *(code for code in ErrorCode if stage_of(code) is Stage.DECODE)} - of_processes == set(codes)
