"""
The head ``style``: the vote in a projection, its state, and that reading it changes nothing.
"""

import numpy as np
import pytest

from tests.projection_worlds import DIM, world
from worker.heads.reference_bank import ExactBank
from worker.heads.soft_vote import vote_depth, vote_log_odds
from worker.heads.style import Style, projection_of

REFERENCES = world(range(3))
BANK = ExactBank(REFERENCES)
PICTURES = world([9]).features


def any_head(seed: int = 1) -> Style:
    """
    A head with a random projection to six dimensions.
    """
    random = np.random.default_rng(seed)
    return Style(projection_of(random.normal(size=DIM) / 10, random.normal(size=(DIM, 6))), k=5, temperature=0.2)


def test_score_is_the_vote_among_projected_references() -> None:
    """
    Projecting queries and references by hand and voting there gives the same.
    """
    head = any_head()
    projected = [
        (vectors - head.projection.mean) @ head.projection.matrix
        for vectors in (PICTURES.unit, REFERENCES.features.unit)
    ]
    queries, bank = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in projected)
    cosines = queries @ bank.T
    readings = head.read(PICTURES, BANK)
    nearest = BANK.nearest("global", PICTURES.unit, vote_depth(5, BANK.sizes("global")), head.projection)

    assert np.allclose(cosines[:, REFERENCES.positive].max(axis=1), readings.parts["nearest_generated"], atol=1e-5)
    assert np.allclose(cosines[:, ~REFERENCES.positive].max(axis=1), readings.parts["nearest_real"], atol=1e-5)
    assert np.array_equal(vote_log_odds(nearest, BANK.sizes("global"), k=5, temperature=0.2), readings.score)


def test_companions_do_not_matter() -> None:
    """
    A picture reads the same alone and beside others, up to rounding of float32 similarities.
    """
    head = any_head()
    alone = [head.read(PICTURES.take([row]), BANK).score[0] for row in range(len(PICTURES))]

    assert np.allclose(alone, head.read(PICTURES, BANK).score, atol=1e-4)


def test_bank_without_a_class_says_nothing() -> None:
    """
    With reals alone there is no vote: NaN, not a verdict.
    """
    reals = REFERENCES.take(np.flatnonzero(~REFERENCES.positive))
    readings = any_head().read(PICTURES, ExactBank(reals))

    assert np.isnan(readings.score).all()
    assert {"nearest_generated", "nearest_real"} == set(readings.parts)


def test_state_brings_the_head_back() -> None:
    """
    What was written reads the same bit for bit, and the projection has the id under which a bank has kept its images.
    """
    head = any_head()
    back = Style.restored(head.state())

    assert head.projection.id == back.projection.id
    assert np.array_equal(head.read(PICTURES, BANK).score, back.read(PICTURES, BANK).score)
    assert ("style", "1", 5, 0.2) == (back.name, back.version, back.k, back.temperature)


def test_projections_are_told_apart() -> None:
    """
    Another matrix, another mean or another shape is another id; a copy in another layout is the same.
    """
    mean, matrix = np.zeros(4), np.arange(8.0).reshape(4, 2)
    ids = {
        projection_of(mean, matrix).id,
        projection_of(mean + 1, matrix).id,
        projection_of(mean, matrix + 1).id,
        projection_of(mean, matrix.reshape(2, 4)).id,
    }

    assert len(ids) == 4
    assert projection_of(mean, np.asfortranarray(matrix)).id in ids


def test_features_of_another_space_are_refused() -> None:
    """
    A projection learnt in 48 dimensions refuses others, and says what to do.
    """
    head = Style(projection_of(np.zeros(7), np.zeros((7, 2))), k=5, temperature=0.2)

    with pytest.raises(ValueError, match="learnt for 7 dimensions, these features have 48: fit it again"):
        head.read(PICTURES, BANK)
