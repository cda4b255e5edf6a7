"""
The statistics of the Image Realism Score, against scikit-image and against their definitions written out with scipy.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy import fft, ndimage
from skimage.feature import graycomatrix, graycoprops

from tests.pictures import photograph
from worker.adapters.realism_statistics import statistics
from worker.domain import Pixels
from worker.heads.features import REALISM


def shapes() -> Pixels:
    """
    Edges of every direction and strength, some with nothing but a weak one to them.
    """
    picture = Image.new("RGB", (200, 160), (90, 90, 90))
    draw = ImageDraw.Draw(picture)
    for number in range(12):
        x, y, level = 15 * number, 11 * (number * 5 % 12), 90 + 12 * (number + 1)
        draw.ellipse((x, y, x + 40, y + 30), fill=(level,) * 3)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(0.8)))


PICTURES = {
    "shapes": shapes(),
    "photograph": np.asarray(photograph(160, 120)),
    "noise": np.random.default_rng(1).integers(0, 256, (96, 96, 3), dtype=np.uint8),
    "gradient": np.asarray(Image.linear_gradient("L").convert("RGB")),
    "flat": np.full((64, 64, 3), 200, np.uint8),
}


def named(pixels: Pixels) -> dict[str, float]:
    """
    The statistics by their names.
    """
    return dict(zip(REALISM, statistics(pixels), strict=True))


def grey_of(pixels: Pixels) -> NDArray[np.uint8]:
    """
    Luma of ITU-R BT.601, rounded.
    """
    luma: NDArray[np.float64] = pixels @ np.array([0.299, 0.587, 0.114])
    return np.rint(luma).astype(np.uint8)


def edge_share(grey: NDArray[np.uint8]) -> float:
    """
    Canny's definition, step by step: Sobel, the largest across the gradient, and growing from strong to weak edges.
    """
    across, down = (ndimage.sobel(grey.astype(int), axis=axis, mode="nearest") for axis in (1, 0))
    strength = np.abs(across) + np.abs(down)
    angle = np.degrees(np.arctan2(down, across)) % 180
    steps = {0: (0, 1), 45: (1, 1), 90: (1, 0), 135: (1, -1)}
    padded = np.pad(strength, 1)
    largest = np.zeros(strength.shape, bool)
    for direction, (row, column) in steps.items():
        along = np.minimum(np.abs(angle - direction), 180 - np.abs(angle - direction)) <= 22.5
        one = np.roll(padded, (-row, -column), (0, 1))[1:-1, 1:-1]
        other = np.roll(padded, (row, column), (0, 1))[1:-1, 1:-1]
        # Of equal neighbours the one on the left or above is the edge, and on a diagonal none: OpenCV's choice.
        largest |= along & (strength > other) & (strength > one if direction % 90 else strength >= one)
    weak = largest & (strength > 100)
    groups, _ = ndimage.label(weak, structure=np.ones((3, 3)))
    strong = np.unique(groups[largest & (strength > 200)])
    return float(np.isin(groups, strong[strong > 0]).mean())


@pytest.mark.parametrize("name", PICTURES)
def test_co_occurrence_is_that_of_scikit_image(name: str) -> None:
    """
    Contrast and energy (the angular second moment) of the symmetric, normalised matrix of right neighbours.
    """
    found = named(PICTURES[name])
    matrix = graycomatrix(  # type: ignore[no-untyped-call] # scikit-image has no types
        grey_of(PICTURES[name]), [1], [0], levels=256, symmetric=True, normed=True
    )
    expected = {
        which: graycoprops(matrix, which)[0, 0]  # type: ignore[no-untyped-call] # likewise
        for which in ("contrast", "ASM")
    }

    assert found["glcm_contrast"] == pytest.approx(expected["contrast"], rel=2e-3, abs=1e-12)
    assert found["glcm_energy"] == pytest.approx(expected["ASM"], rel=2e-3)


@pytest.mark.parametrize("name", PICTURES)
def test_laplacian_and_spectrum_are_their_definitions(name: str) -> None:
    """
    The variance over four neighbours less four times the middle, and the mean magnitude of all frequencies.
    """
    found = named(PICTURES[name])
    grey = grey_of(PICTURES[name]).astype(float)
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])

    assert found["laplacian_variance"] == pytest.approx(ndimage.correlate(grey, kernel, mode="mirror").var(), rel=2e-3)
    assert found["mean_spectrum"] == pytest.approx(np.abs(fft.fft2(grey)).mean(), rel=2e-3)


@pytest.mark.parametrize("name", PICTURES)
def test_edges_are_those_of_cannys_definition(name: str) -> None:
    """
    But for the rounding of directions that lie between two of the four.
    """
    assert named(PICTURES[name])["canny_edge_density"] == pytest.approx(edge_share(grey_of(PICTURES[name])), abs=0.001)


def test_a_step_has_one_line_of_edges() -> None:
    """
    Left black and right white: one pixel in each row is an edge, and no other.
    """
    step = np.zeros((64, 80, 3), np.uint8)
    step[:, 40:] = 255

    assert 64 / (64 * 80) == named(step)["canny_edge_density"]


def test_a_flat_picture_has_nothing_but_energy() -> None:
    """
    No edge, no contrast, one pair of levels, one frequency.
    """
    found = named(PICTURES["flat"])

    assert (0.0, 0.0, 1.0, 0.0) == tuple(found.values())[:4]
    assert found["mean_spectrum"] == pytest.approx(200)


def test_many_threads_measure_alike() -> None:
    """
    The decode threads measure at once, and each gets what it would get alone.
    """
    alone = {name: statistics(pixels) for name, pixels in PICTURES.items()}
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda name: (name, statistics(PICTURES[name])), [*PICTURES] * 10))

    assert all(alone[name] == found for name, found in together)
