"""
The heat map where the bank carries a judgement: red is what counts as evidence for generated in its verdicts.
"""

import numpy as np
import pytest

from tests.judgement_worlds import DIM, some_references, table_of
from tests.review_judgements import a_scale, judging_by
from worker.heads.features import FeatureTable, References
from worker.heads.global_local import GlobalLocal
from worker.heads.heatmap import RAW, TileVote, tile_evidence
from worker.heads.knn import Knn
from worker.heads.reference_bank import ExactBank
from worker.stages.review_picture import tile_vote

GLOBAL_LOCAL = GlobalLocal(k=5, temperature=0.2, native_temperature=0.03)
KNN = Knn(k=7, temperature=0.11)


def some_tiles() -> FeatureTable:
    """
    Vectors across both labels.
    """
    rng = np.random.default_rng(5)
    return table_of(rng.normal(size=(200, DIM)), rng)


def test_the_head_of_the_crops_is_asked_first() -> None:
    """
    ``global_local`` with the temperature of the view, else ``knn``, else the vote as it stands.
    """
    both, only_knn = judging_by(KNN, GLOBAL_LOCAL), judging_by(KNN)

    assert (5, 0.03, "global_local") == _said(tile_vote(both, "native"))
    assert (5, 0.2, "global_local") == _said(tile_vote(both, "global"))
    assert (7, 0.11, "knn") == _said(tile_vote(only_knn, "native"))
    assert tile_vote(None, "native") == tile_vote(judging_by(), "native") == RAW


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.7, -0.9), (0.1, 3.0), (0.1, -3.0), (0.0, 0.0)])
def test_red_is_evidence_in_a_verdict(direction: float, slope: float, intercept: float) -> None:
    """
    A picture that the head sees as it sees a tile has evidence of the same sign, whichever direction was learnt.
    """
    references: References = some_references(each=10)
    bank, tiles = ExactBank(references), some_tiles()
    judgement = judging_by(KNN, direction=direction, slope=slope, intercept=intercept)
    evidence, _ = tile_evidence(tiles.unit, bank, tile_vote(judgement, "global"))
    scale = a_scale("knn", direction=direction, slope=slope, intercept=intercept)
    of_verdict = scale.evidence(scale.standardised(KNN.read(tiles, bank).score))
    told = np.abs(of_verdict) > 1e-6

    assert (np.sign(of_verdict) == np.sign(evidence))[told].all()
    assert np.corrcoef(direction * KNN.read(tiles, bank).score, evidence)[0, 1] == pytest.approx(1)


def test_the_other_direction_is_the_other_colour() -> None:
    """
    The same tiles, and everything that was red is blue.
    """
    bank, tiles = ExactBank(some_references(each=10)), some_tiles().unit
    ahead, turned = (
        tile_evidence(tiles, bank, tile_vote(judging_by(KNN, direction=direction), "global"))[0]
        for direction in (1.0, -1.0)
    )

    assert (ahead > 0).any()
    assert (ahead < 0).any()
    np.testing.assert_allclose(ahead, -turned, atol=1e-12)


def test_the_temperature_is_the_heads() -> None:
    """
    A colder vote spreads further.
    """
    bank, tiles = ExactBank(some_references(each=10)), some_tiles().unit
    cold, warm = (
        tile_evidence(tiles, bank, tile_vote(judging_by(Knn(temperature=temperature)), "global"))[0].std()
        for temperature in (0.02, 0.5)
    )

    assert cold > 2 * warm


def _said(vote: TileVote) -> tuple[int, float, str | None]:
    return vote.k, vote.temperature, vote.head
