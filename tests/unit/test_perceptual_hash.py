"""
PDQ: the digits that other tools compute, near for near pictures.
"""

import io
import os
import subprocess
import sys

import numpy as np
import pdqhash
from PIL import Image

from tests.pictures import ANY_HASH, decoder_of, encoded, photograph
from worker.adapters.perceptual_hash import pdq


def distance(left: str, right: str) -> int:
    """
    Bits that differ, 0 to 256.
    """
    return (int(left, 16) ^ int(right, 16)).bit_count()


def test_digits_are_in_the_order_of_the_reference() -> None:
    """
    Bit 16 i + j of the 256-bit number says whether coefficient (i, j) lies above the median, as in ThreatExchange.
    """
    pixels = np.asarray(photograph(120, 90, seed=5))
    coefficients = pdqhash.compute_float(pixels)[0][::-1]
    expected = sum(int(value > np.median(coefficients)) << bit for bit, value in enumerate(coefficients))

    assert f"{expected:064x}" == pdq(pixels)[0]


def test_copies_are_near_and_strangers_are_far() -> None:
    """
    A recompressed, smaller copy stays within PDQ's usual limit of 31 bits; another picture does not come near it.
    """
    picture = photograph(800, 600, seed=1)
    copy = Image.open(io.BytesIO(encoded(picture.resize((500, 375)), "JPEG", quality=60)))
    original, near = pdq(np.asarray(picture.resize((400, 300)))), pdq(np.asarray(copy))
    far = pdq(np.asarray(photograph(400, 300, seed=2)))

    assert distance(original[0], near[0]) <= 31
    assert distance(original[0], far[0]) > 64


def test_a_featureless_picture_has_no_quality() -> None:
    """
    Quality 0 tells that the digits mean nothing.
    """
    assert 0 == pdq(np.full((100, 100, 3), 128, np.uint8))[1]


def test_what_a_confined_process_needs_is_taken_before() -> None:
    """
    With hardly any address space beyond what it has, a process that took its memory computes the same hash.
    """
    program = (
        "import numpy as np, resource\n"
        "from worker.adapters.perceptual_hash import pdq, take_memory\n"
        "take_memory()\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (12 << 20),) * 2)\n"
        "rows, columns = np.mgrid[0:384, 0:512] // 37\n"
        "print(pdq(np.repeat(((rows * 7 + columns * 5) % 11 * 20).astype(np.uint8)[..., None], 3, axis=2))[0])\n"
    )
    # Newer processors have kernels that need no working memory for products as small as these.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Haswell"}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100, env=environment
    )
    rows, columns = np.mgrid[0:384, 0:512] // 37
    pixels = np.repeat(((rows * 7 + columns * 5) % 11 * 20).astype(np.uint8)[..., None], 3, axis=2)

    assert (0, "") == (ran.returncode, ran.stderr)
    assert pdq(pixels)[0] == ran.stdout.strip()


def test_the_decoder_hashes_a_reduced_picture() -> None:
    """
    The facts hold the hash of the picture reduced to at most 512 pixels, near to that of the whole.
    """
    picture = photograph(1600, 900, seed=3)
    shapes: list[tuple[int, ...]] = []

    def remembering(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> tuple[str, int]:
        shapes.append(pixels.shape)
        return pdq(pixels)

    facts = decoder_of(64, perceptual_hash=remembering).decode(encoded(picture, "PNG"), ANY_HASH).facts
    whole, quality = pdq(np.asarray(picture))

    assert [(225, 400, 3)] == shapes
    assert facts.pdq is not None
    assert distance(facts.pdq, whole) <= 10
    assert facts.pdq_quality is not None
    assert abs(facts.pdq_quality - quality) <= 5
