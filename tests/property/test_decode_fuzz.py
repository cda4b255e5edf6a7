"""
Fuzzing the decoder: mutated real files and files made on the spot, for as long as there is time.

``TOUCHSTONE_FUZZ_SECONDS`` sets how long, 20 s unless given. A run is told by its seed, so that it can be repeated with
``TOUCHSTONE_FUZZ_SEED``. What Hypothesis shrinks is in ``test_decode.py``; here it is the number of files that counts.
"""

import io
import os
import random
import resource
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import Stage, stage_of
from tests.pictures import ANY_HASH, encoded, photograph, spec_of
from worker.adapters.perceptual_hash import pdq
from worker.adapters.realism_statistics import statistics
from worker.errors import UploadFailed
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.stages.gif_extent import gif_extent
from worker.views import ViewSpec

SIDE = 32
MAX_PIXELS = 1_000_000
MAX_GROWTH_BYTES = 400 << 20
"""What the process may grow by: pixels of the largest picture times four channels, some copies, and the allocator."""

MAX_SEED_BYTES = 200_000
SECONDS_PER_FILE = 10.0

DECODER = PillowDecoder(
    spec_of(SIDE),
    DecodeLimits(max_pixels=MAX_PIXELS, max_frames=4, max_animation_pixels=4_000_000, on_grey=True),
    pdq,
    views=ViewSpec(native_crops=2, realism=True),
    statistics=statistics,
)
CRUMBS = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xd9", b"IEND")


def made_files() -> list[bytes]:
    """
    One file of each kind that the decoder treats in a way of its own.
    """
    picture = photograph(60, 44)
    frames = [photograph(60, 44, seed=seed) for seed in range(6)]
    with_alpha = picture.convert("RGBA")
    with_alpha.putalpha(picture.convert("L"))
    files = [encoded(picture, name) for name in ("JPEG", "PNG", "WEBP", "GIF", "AVIF")]
    files += [
        encoded(frames[0], name, save_all=True, append_images=frames[1:]) for name in ("GIF", "PNG", "WEBP", "AVIF")
    ]
    files += [encoded(with_alpha, name) for name in ("PNG", "WEBP", "AVIF")]
    files += [encoded(picture.convert("CMYK"), "JPEG"), encoded(picture, "JPEG", progressive=True)]
    files.append(encoded(Image.fromarray(np.arange(2640, dtype=np.uint16).reshape(44, 60) * 24), "PNG"))
    exif = Image.Exif()
    exif[0x0112] = 6
    files.append(encoded(picture, "JPEG", exif=exif, icc_profile=b"no profile"))
    return files


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """
    The file with some damage: bytes changed, removed, doubled, moved, cut off, or taken from another file.
    """
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not changed:
            break
        at, length = rng.randrange(len(changed)), rng.choice((1, 2, 4, 8, 64, 512))
        kind = rng.randrange(7)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            crumb = rng.choice(CRUMBS)
            changed[at : at + len(crumb)] = crumb
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length]
        elif kind == 4:
            changed[at : at + length] = rng.randbytes(length)
        elif kind == 5:
            del changed[at:]
        else:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            changed[at : at + length] = other[start : start + length]
    return bytes(changed)


def looked_at(data: bytes, codes: Counter[str]) -> None:
    """
    Decode; only pixels of the promised shape or a code of the decode stage may come out.
    """
    failed: UploadFailed | None = None
    try:
        seen = DECODER.decode(data, ANY_HASH)
    except UploadFailed as failure:
        failed = failure
    if failed is not None:
        assert Stage.DECODE == stage_of(failed.code)
        assert failed.detail.isprintable()
        codes[failed.code.value] += 1
        return
    codes["decoded"] += 1
    for look in seen.looks:
        assert {(SIDE, SIDE, 3)} == {view.shape for view in (look.pixels, *look.native)}
        assert look.realism is not None
        assert np.isfinite(look.realism).all()
    assert len(seen.looks) == len(seen.facts.frames_scored) <= 8
    if data.startswith(b"GIF"):
        require_pillow_agrees(data)


def require_pillow_agrees(data: bytes) -> None:
    """
    Our walk through a GIF's blocks must not miss a frame that Pillow finds, or it would not see it enlarge the picture.
    """
    with Image.open(io.BytesIO(data), formats=["GIF"]) as image:
        try:
            frames = getattr(image, "n_frames", 1)
        except Exception:  # noqa: BLE001 - then Pillow reads none of them
            return
    assert frames <= gif_extent(data, most_frames=10_000).frames


def corpus(shared_data: Path | None) -> Iterator[bytes]:
    """
    The files that are mutated: those made here, and the small ones of the shared corpus where it is at hand.
    """
    yield from made_files()
    if shared_data is not None:
        for path in sorted((shared_data / "odd").rglob("*")):
            if path.is_file() and path.stat().st_size <= MAX_SEED_BYTES:
                yield path.read_bytes()


def fuzz(seeds: list[bytes], *, seconds: float, seed: int) -> Counter[str]:
    """
    Decode mutations of the seeds until the time is over; how they ended.
    """
    rng = random.Random(seed)
    codes: Counter[str] = Counter()
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        data = mutated(rng.choice(seeds), seeds, rng)
        began_s = time.monotonic()
        try:
            looked_at(data, codes)
        except BaseException:
            Path("fuzz-failure.bin").write_bytes(data)
            raise
        assert time.monotonic() - began_s < SECONDS_PER_FILE
    return codes


def resident_bytes() -> int:
    """
    The most that this process ever had in memory.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.alone
def test_mutated_files_end_as_pixels_or_a_decode_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whatever is done to a file, nothing else comes out, in bounded time and memory; a failing file is left behind.
    """
    monkeypatch.chdir(tmp_path)
    run(None, share=0.5)


@pytest.mark.alone
@pytest.mark.shared_data
def test_mutated_odd_files_end_as_pixels_or_a_decode_code(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The same from the field's odd files.
    """
    monkeypatch.chdir(tmp_path)
    run(shared_data, share=0.5)


def run(shared_data: Path | None, *, share: float) -> None:
    """
    Fuzz for this share of the time, and hold the result to the bounds.
    """
    seconds = float(os.environ.get("TOUCHSTONE_FUZZ_SECONDS", "20")) * share
    seed = int(os.environ.get("TOUCHSTONE_FUZZ_SEED", str(random.randrange(2**32))))
    seeds = list(corpus(shared_data))
    for data in made_files():  # so that what grows once has grown
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            looked_at(data, Counter())
    before = resident_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codes = fuzz(seeds, seconds=seconds, seed=seed)
    print(f"seed {seed}: {sum(codes.values())} files in {seconds:g} s: {dict(codes)}")  # noqa: T201 - to repeat the run

    assert {"decoded", "DECODE_FAILED"} <= set(codes)
    assert resident_bytes() - before < MAX_GROWTH_BYTES
