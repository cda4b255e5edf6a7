"""
Sightings as features, and flag thresholds as the policy asks for them.
"""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.scripted_judgement import ScriptedJudgement
from tests.sightings import a_hash, a_sighting
from worker.domain import Embedding
from worker.errors import ConfigInvalid
from worker.policy import Rule
from worker.stages.assess import features_of, flag_thresholds

DIM = 24


def an_embedding(seed: int) -> Embedding:
    """
    A direction of its own.
    """
    return Embedding.from_features(np.random.default_rng(seed).standard_normal(DIM))


def test_what_a_sighting_holds_is_in_the_features() -> None:
    """
    Row by row, with the crops under their owners, and the short side of the file.
    """
    bare = replace(a_sighting(a_hash("bare")), norm=math.nan, native=(), realism=None, shift=None)
    whole = replace(
        a_sighting(a_hash("whole")),
        norm=17.5,
        native=(an_embedding(1), an_embedding(2)),
        realism=(0.1, 0.2, 0.3, 0.4, 0.5),
        shift=(0.01, 0.02, 0.03),
    )
    features = features_of([bare, whole], DIM)

    assert np.array_equal(features.unit, np.stack([bare.embedding.vector, whole.embedding.vector]))
    assert np.isnan(features.norm[0])
    assert features.norm[1] == 17.5
    assert features.native_owner.tolist() == [1, 1]
    assert np.array_equal(features.native[1], an_embedding(2).vector)
    assert np.isnan(features.realism[0]).all()
    assert np.isnan(features.shift[0]).all()
    assert features.realism[1].tolist() == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert features.shift[1].tolist() == [0.01, 0.02, 0.03]
    assert features.format == ("PNG", "PNG")
    assert features.short_side_px.tolist() == [1080, 1080]


def test_a_side_that_is_not_known_is_no_number() -> None:
    """
    Not 0, which would be a very small picture.
    """
    sighting = a_sighting(a_hash("one"))
    unknown = replace(sighting, facts=sighting.facts.model_copy(update={"height": None}))

    assert np.isnan(features_of([unknown], DIM).short_side_px[0])


def test_no_sightings_have_no_features() -> None:
    """
    With the shapes of the encoder's space all the same.
    """
    features = features_of([], DIM)

    assert (len(features), features.dim) == (0, DIM)
    assert (features.realism.shape, features.shift.shape) == ((0, 5), (0, 3))


def test_each_bucket_has_its_flag_threshold() -> None:
    """
    The policy's alpha, and with pac_delta less, the more so the fewer reals a bucket has.
    """
    judgement = ScriptedJudgement(reals={"all": 999, "JPEG/<512": 120})
    marginal = flag_thresholds(judgement, ["all", "JPEG/<512"], Rule(alpha=0.05))
    pac = flag_thresholds(judgement, ["all", "JPEG/<512"], Rule(alpha=0.05, pac_delta=0.1))

    assert marginal == {"all": 0.05, "JPEG/<512": 0.05}
    assert 0 < pac["JPEG/<512"] < pac["all"] < 0.05


def test_too_few_reals_for_the_alpha_of_the_policy_are_refused() -> None:
    """
    Naming the bucket, how many it has and how many it takes.
    """
    judgement = ScriptedJudgement(reals={"all": 999, "JPEG/<512": 120})

    with pytest.raises(ConfigInvalid, match=r"JPEG/<512 has 120 reals.* needs at least 199"):
        flag_thresholds(judgement, ["all", "JPEG/<512"], Rule(alpha=0.005))
