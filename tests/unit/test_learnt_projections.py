"""
What the two learnt projections find that plain neighbours do not, on made-up features with strong content.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.projection_worlds import world
from worker.fitting.contrastive_style import fit_style
from worker.fitting.contrastive_traces import fit_natural_traces
from worker.fitting.contrastive_training import auroc, spherical_means
from worker.heads.features import Column, Matrix, References
from worker.heads.head import Head
from worker.heads.knn import Knn
from worker.heads.natural_traces import NaturalTraces
from worker.heads.reference_bank import ExactBank
from worker.heads.style import Style

KNOWN, NEW = world(range(24), crops=2), world(range(100, 116), crops=2)
"""Content of the new pictures appears in none of the references."""

FITS = {"natural_traces": fit_natural_traces, "style": fit_style}


@pytest.fixture(scope="module")
def traces() -> NaturalTraces:
    """
    Learnt from all references.
    """
    return fit_natural_traces(KNOWN, seed=0)


@pytest.fixture(scope="module")
def style() -> Style:
    """
    Learnt from all references.
    """
    return fit_style(KNOWN, seed=0)


def found(head: Head) -> float:
    """
    How well a head tells new pictures apart.
    """
    return auroc(head.read(NEW.features, ExactBank(KNOWN)).score, NEW.positive)


def test_natural_traces_tell_new_content_apart(traces: NaturalTraces) -> None:
    """
    Reals of unseen content lie nearer to the traces than generated pictures do; plain neighbours see much less of it.
    """
    assert found(traces) > 0.9
    assert found(Knn()) < found(traces) - 0.03


def test_style_tells_new_content_apart(style: Style) -> None:
    """
    The same vote sees more in the style space than in the encoder's.
    """
    assert found(style) > 0.9
    assert found(Knn()) < found(style) - 0.03


def test_neighbours_in_style_space_share_the_label_and_not_the_content(style: Style) -> None:
    """
    Before, nearly all nearest neighbours show the same; after, nearly as few as by chance, and more share the label.
    """
    features = KNOWN.features.unit
    same_content, same_label = _shared(features, KNOWN)
    same_content_after, same_label_after = _shared(style.projection(features), KNOWN)

    assert same_content > 0.9
    assert same_content_after < 3 / 24
    assert same_label_after > same_label + 0.05


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_fit_is_repeatable_and_leaves_torch_alone(fit: Callable[..., Head]) -> None:
    """
    The same seed gives the same head bit for bit whatever was drawn before; the process draws on as if nothing was.
    """
    small = KNOWN.take(range(120))
    heads = []
    for drawn in (1, 2):
        torch.manual_seed(drawn)
        threads, state = torch.get_num_threads(), torch.random.get_rng_state()
        heads.append(fit(small, seed=3))

        assert threads == torch.get_num_threads()
        assert torch.equal(state, torch.random.get_rng_state())
    first, second = (head.state() for head in heads)

    assert first.settings == second.settings
    assert all(np.array_equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_eight_references_are_enough_to_fit(fit: Callable[..., Head]) -> None:
    """
    Four of either label, without a source, a generator or a crop, give a head that can read.
    """
    few = world([1]).take([0, 1, 2, 3, 20, 21, 22, 23])
    nameless = References(few.features, few.positive, (None,) * 8, (None,) * 8, few.content)
    score = fit(nameless, seed=0).read(NEW.features, ExactBank(nameless)).score

    assert np.isfinite(score).all()


def test_crops_are_looked_at_where_references_have_them(traces: NaturalTraces) -> None:
    """
    With crops the map takes both views, without any it takes the global view, and the traces have length 1.
    """
    without = fit_natural_traces(world(range(6)), seed=0)

    assert (True, False) == (traces.with_native, without.with_native)
    assert np.allclose(1.0, np.linalg.norm(traces.traces, axis=1), atol=1e-5)
    assert len(traces.traces) <= 64


def test_centres_are_the_directions_of_their_members() -> None:
    """
    Spherical k-means finds two bundles of directions, and never a centre that is not of length 1.
    """
    random = np.random.default_rng(0)
    bundles = np.repeat(np.eye(3)[:2], 20, axis=0) + random.normal(size=(40, 3)) * 0.05
    unit = torch.nn.functional.normalize(torch.from_numpy(bundles))
    centres, nearest = spherical_means(unit, 2, random)

    assert {0, 1} == set(nearest.tolist())
    for centre in range(2):
        direction = unit[nearest == centre].sum(dim=0)
        assert torch.allclose(direction / direction.norm(), centres[centre], atol=1e-9)


def _shared(vectors: Matrix, references: References) -> tuple[float, float]:
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    nearest = np.argsort(-cosines, axis=1)[:, :5]
    content, label = np.array(references.source), references.positive
    return _agreement(content[nearest] == content[:, None]), _agreement(label[nearest] == label[:, None])


def _agreement(same: Column) -> float:
    return float(np.mean(same))
