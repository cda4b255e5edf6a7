"""
Fuzzing the decoder: mutated real files and files made on the spot, for as long as there is time.

Checksums of PNGs are mostly put right again, for otherwise hardly one comes further than its first chunks; files with
Content Credentials are among those mutated, and their reader takes part; the processes of a worker take part as well.
``TOUCHSTONE_FUZZ_SECONDS`` sets how long, 20 s unless given. A run is told by its seed, so that it can be repeated with
``TOUCHSTONE_FUZZ_SEED``. What Hypothesis shrinks is in ``test_decode.py``; here it is the number of files that counts.
"""

import io
import os
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import Stage, stage_of
from tests.pictures import ANY_HASH, encoded, photograph, spec_of
from tests.png_files import SIGNATURE, rearranged, repaired
from tests.signed_pictures import MEDIA_TYPES, a_signed_picture, a_signer
from worker.adapters.content_credentials import credentials_reader
from worker.adapters.heap import give_back_memory
from worker.adapters.perceptual_hash import pdq
from worker.adapters.realism_statistics import statistics
from worker.decoding.process_decoder import Lifetimes, ProcessDecoder
from worker.decoding.protocol import Setup
from worker.errors import UploadFailed
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.stages.gif_extent import gif_extent, read_gif
from worker.views import ViewSpec

SIDE = 32
MAX_PIXELS = 1_000_000
MAX_GROWTH_BYTES = 400 << 20
"""What the process may grow by: pixels of the largest picture times four channels, some copies, and the allocator."""

MAX_SEED_BYTES = 200_000
SECONDS_PER_FILE = 10.0

LIMITS = DecodeLimits(max_pixels=MAX_PIXELS, max_frames=4, max_animation_pixels=4_000_000, on_grey=True)
VIEWS = ViewSpec(native_crops=2, realism=True)
ANCHOR = a_signer().anchor
DECODER = PillowDecoder(
    spec_of(SIDE), LIMITS, pdq, views=VIEWS, statistics=statistics, credentials=credentials_reader(ANCHOR)
)
REPAIRED = 0.8
"""In this share of the mutated PNGs all checksums are right."""
REARRANGED = 0.6
"""This share of the PNGs is damaged chunk by chunk."""
ENOUGH_FILES = 400

OF_PROCESSES = {"DECODE_CRASHED", "DECODE_TIMEOUT"}
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
    files += [
        encoded(frames[0], "PNG", save_all=True, append_images=frames[1:3], disposal=way, blend=way % 2, **options)
        for way, options in ((0, {"default_image": True}), (1, {}), (2, {"transparency": (1, 2, 3)}))
    ]
    files += [encoded(with_alpha, name) for name in ("PNG", "WEBP", "AVIF")]
    files += [encoded(picture.convert("CMYK"), "JPEG"), encoded(picture, "JPEG", progressive=True)]
    files.append(encoded(Image.fromarray(np.arange(2640, dtype=np.uint16).reshape(44, 60) * 24), "PNG"))
    files += [encoded(picture.convert("L").quantize(4), "PNG", bits=2), encoded(picture, "PNG", transparency=(1, 2, 3))]
    files += [a_signed_picture(name) for name in sorted(MEDIA_TYPES)]
    exif = Image.Exif()
    exif[0x0112] = 6
    files.append(encoded(picture, "JPEG", exif=exif, icc_profile=b"no profile"))
    return files


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """
    The file with some damage: bytes changed, removed, doubled, moved, cut off, or taken from another file.

    Of a PNG mostly with checksums that hold, and with its chunks as what is damaged.
    """
    if data.startswith(SIGNATURE) and rng.random() < REARRANGED:
        return rearranged(data, rng)
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
    return repaired(bytes(changed)) if rng.random() < REPAIRED else bytes(changed)


def looked_at(data: bytes, codes: Counter[str], decoder: PillowDecoder | ProcessDecoder = DECODER) -> None:
    """
    Decode; only pixels of the promised shape or a code of the decode stage may come out.
    """
    failed: UploadFailed | None = None
    try:
        seen = decoder.decode(data, ANY_HASH)
    except UploadFailed as failure:
        failed = failure
    if failed is not None:
        assert Stage.DECODE == stage_of(failed.code)
        assert failed.detail.isprintable()
        codes[failed.code.value] += 1
        return
    codes["decoded"] += 1
    codes["an animation"] += len(set(seen.facts.frames_scored)) > 1
    codes["a PNG's animation"] += seen.facts.format == "PNG" and len(set(seen.facts.frames_scored)) > 1
    codes["credentials"] += seen.facts.credentials is not None
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
    try:
        given = read_gif(data)
    except UploadFailed:
        return
    with Image.open(io.BytesIO(given), formats=["GIF"]) as image:
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


def fuzz(
    seeds: list[bytes], *, seconds: float, seed: int, decoder: PillowDecoder | ProcessDecoder = DECODER
) -> Counter[str]:
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
            looked_at(data, codes, decoder)
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
    run(None, share=0.4)


@pytest.mark.alone
@pytest.mark.shared_data
def test_mutated_odd_files_end_as_pixels_or_a_decode_code(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The same from the field's odd files.
    """
    monkeypatch.chdir(tmp_path)
    run(shared_data, share=0.4)


@pytest.mark.alone
def test_mutated_files_harm_no_process_of_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Within the limits of the processes that decode for a worker nothing else comes out either, and none of them dies.
    """
    monkeypatch.chdir(tmp_path)
    setup = Setup(
        spec_of(SIDE),
        LIMITS,
        VIEWS,
        memory_bytes=1 << 31,
        cpu_s=SECONDS_PER_FILE,
        pictures=100_000,
        perceptual_hash=True,
        credentials=True,
        trust_anchors_pem=ANCHOR,
    )
    endings: list[str] = []
    decoder = ProcessDecoder(setup, Lifetimes(1, SECONDS_PER_FILE, 100_000), on_end=endings.append)
    try:
        looked_at(made_files()[0], Counter(), decoder)  # so that a process is there
        seconds, seed = time_and_seed(share=0.2)
        codes = fuzz(made_files(), seconds=seconds, seed=seed, decoder=decoder)
    finally:
        decoder.close()
    print(f"seed {seed}: {dict(codes)} in {seconds:g} s")  # noqa: T201 - to repeat the run

    assert {"decoded", "DECODE_FAILED"} <= set(codes)
    assert not OF_PROCESSES & set(codes)
    assert "crashed" not in endings


def time_and_seed(*, share: float) -> tuple[float, int]:
    """
    How long to fuzz, for this share of the time, and from which seed.
    """
    seconds = float(os.environ.get("TOUCHSTONE_FUZZ_SECONDS", "20")) * share
    return seconds, int(os.environ.get("TOUCHSTONE_FUZZ_SEED", str(random.randrange(2**32))))


def run(shared_data: Path | None, *, share: float) -> None:
    """
    Fuzz for this share of the time, and hold the result to the bounds.
    """
    seconds, seed = time_and_seed(share=share)
    seeds = list(corpus(shared_data))
    for data in made_files():  # so that what grows once has grown
        looked_at(data, Counter())
    give_back_memory()  # what other tests have freed, and the C library has kept
    before = resident_bytes()
    codes = fuzz(seeds, seconds=seconds, seed=seed)
    ended = sum(count for kind, count in codes.items() if kind == "decoded" or kind.isupper())
    print(f"seed {seed}: {ended} files in {seconds:g} s: {dict(codes)}")  # noqa: T201 - to repeat the run

    assert {"decoded", "DECODE_FAILED"} <= set(codes)
    if shared_data is None and ended > ENOUGH_FILES:  # otherwise it is the headers alone that are fuzzed
        assert min(codes["an animation"], codes["a PNG's animation"], codes["credentials"]) > 0
    give_back_memory()  # what is free is no growth: how much of it is kept, other tests in this process decide
    assert resident_bytes() - before < MAX_GROWTH_BYTES
