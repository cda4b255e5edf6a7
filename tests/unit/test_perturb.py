"""
Perturbed copies and the shift of their embedding, against the formulas written out.
"""

import numpy as np
import pytest
from scipy.ndimage import correlate
from scipy.spatial.distance import cosine

from tests.pictures import photograph
from worker.domain import Pixels
from worker.heads.features import SHIFT
from worker.stages.perturb import COPIES, perturbed_copies, shift_of

SIGMA = 0.009 * 255


def pixels_of(width: int, height: int, *, seed: int = 0) -> Pixels:
    """
    A picture as an encoder takes it.
    """
    return np.asarray(photograph(width, height, seed=seed))


def grey(side: int) -> Pixels:
    """
    A picture to which anything may be added without reaching black or white.
    """
    return np.full((side, side, 3), 128, np.uint8)


@pytest.mark.parametrize("size", [(224, 224), (32, 32), (33, 47), (1, 1)])
def test_there_are_so_many_copies_of_the_pictures_shape(size: tuple[int, int]) -> None:
    """
    Each is an encoder's input like the picture itself, and the same every time.
    """
    pixels = pixels_of(*size)
    copies, again = perturbed_copies(pixels), perturbed_copies(pixels)

    assert COPIES == len(copies)
    assert all((pixels.dtype, pixels.shape) == (copy.dtype, copy.shape) for copy in copies)
    assert all(np.array_equal(*pair) for pair in zip(copies, again, strict=True))
    assert np.array_equal(pixels, pixels_of(*size))


def test_noise_is_normal_of_the_papers_strength_and_differs_from_copy_to_copy() -> None:
    """
    Standard deviation 0.009 of the full range, mean 0, and no two fields alike; the same for any picture of one size.
    """
    fields = [copy.astype(int) - 128 for copy in perturbed_copies(grey(224))[:3]]
    other = perturbed_copies(np.full((224, 224, 3), 100, np.uint8))[0].astype(int) - 100

    # Rounding to whole levels adds a twelfth to the variance.
    assert all(abs(field.std() - np.sqrt(SIGMA**2 + 1 / 12)) < 0.02 for field in fields)
    assert all(abs(field.mean()) < 0.02 for field in fields)
    assert all(abs(np.corrcoef(fields[0].ravel(), field.ravel())[0, 1]) < 0.02 for field in fields[1:])
    assert np.array_equal(fields[0], other)


def test_the_blur_is_a_gaussian_of_nine_pixels_and_the_sharpened_copy_its_mirror_image() -> None:
    """
    Sigma 0.55 px on 3 x 3, edges mirrored; sharpened is twice the picture less the blurred one, kept within range.
    """
    pixels = pixels_of(64, 48)
    across, down = np.meshgrid([-1, 0, 1], [-1, 0, 1])
    kernel = np.exp(-(across**2 + down**2) / (2 * 0.55**2))
    blurred = np.stack(
        [correlate(pixels[..., channel].astype(float), kernel / kernel.sum(), mode="mirror") for channel in range(3)], 2
    )
    copies = perturbed_copies(pixels)

    assert np.abs(blurred - copies[3]).max() <= 0.5 + 1e-3
    assert np.abs(np.clip(2.0 * pixels - blurred, 0, 255) - copies[4]).max() <= 0.5 + 1e-3
    assert np.array_equal(grey(32), perturbed_copies(grey(32))[3])


def test_high_frequency_noise_has_no_low_frequency_in_any_patch() -> None:
    """
    Within each patch of 14 x 14 pixels nothing but rounding lies below a quarter of a cycle per pixel.
    """
    field = perturbed_copies(grey(224))[5].astype(float) - 128
    patches = field.reshape(16, 14, 16, 14, 3).transpose(0, 2, 4, 1, 3)
    power = np.abs(np.fft.fft2(patches)) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(14), np.fft.fftfreq(14)))
    low, high = power[..., radius <= 0.25].mean(), power[..., radius > 0.25].mean()

    assert abs(field.std() - SIGMA) < 0.05
    # What is left below is what rounding to whole levels puts everywhere: 1/12 per pixel.
    assert abs(low / 14**2 - 1 / 12) < 0.01
    assert high / low > 50


def test_the_shift_is_made_of_cosine_distances() -> None:
    """
    Mean distance to the noisy copies, distance between blurred and sharpened, distance to the high-frequency copy.
    """
    rng = np.random.default_rng(3)
    original = rng.normal(size=20).astype(np.float32)
    copies = (original + rng.normal(size=(COPIES, 20)) * 0.1).astype(np.float32)
    shift = dict(zip(SHIFT, shift_of(original, copies), strict=True))

    assert shift["noise"] == pytest.approx(np.mean([cosine(original, copy) for copy in copies[:3]]), rel=1e-4)
    assert shift["contrastive_blur"] == pytest.approx(cosine(copies[3], copies[4]), rel=1e-4)
    assert shift["high_frequency"] == pytest.approx(cosine(original, copies[5]), rel=1e-4)
    assert all(float(np.float32(value)) == value for value in shift.values())


def test_the_length_of_features_does_not_matter_and_equal_ones_have_no_distance() -> None:
    """
    Copies that point where the original points have shift 0, however long they are, and never less.
    """
    original = np.random.default_rng(5).normal(size=30).astype(np.float32)
    copies = np.stack([original * np.float32(factor) for factor in (0.1, 1, 3, 7, 20, 0.3)])

    assert (0.0, 0.0, 0.0) == pytest.approx(shift_of(original, copies), abs=1e-6)
    assert min(shift_of(original, copies)) >= 0


@pytest.mark.parametrize("number", [np.nan, np.inf, 0.0])
def test_features_without_direction_have_no_shift(number: float) -> None:
    """
    One row that is not finite, or all zero, and the shift cannot be told.
    """
    copies = np.ones((COPIES, 4), np.float32)
    copies[4] = number

    with pytest.raises(ValueError, match="direction"):
        shift_of(np.ones(4, np.float32), copies)


def test_another_number_of_copies_is_refused() -> None:
    """
    The rows have a meaning by their place, so that one too few means all mean something else.
    """
    with pytest.raises(ValueError, match="want"):
        shift_of(np.ones(4, np.float32), np.ones((COPIES - 1, 4), np.float32))
