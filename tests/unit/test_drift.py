"""
Drift: what the distance of Kolmogorov and Smirnov says of uploads that are, and are not, as in the calibration.
"""

from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp

from schemas.verdict import ImageVerdictV1, OutcomeV1
from schemas.wire import round_significant
from tests.fused_builders import a_fused_judgement
from tests.review_judgements import judging_by
from worker.judgement.calibration import prior_shift, sigmoid
from worker.telemetry.drift import Calibrated, DriftWatch, ks_distance

REALS = 1_000
BASE_RATE = 0.5


def calibrated(random: np.random.Generator, *, name: str = "e1", base_rate: float = BASE_RATE) -> Calibrated:
    """
    Reals with normal log-odds around -3, and 400 pictures like the bank's.
    """
    scores = np.sort(told(random.normal(-3, 2, REALS), base_rate))
    return Calibrated(name * 32, base_rate, scores, np.arange(1, 402) / 401)


def told(log_odds: Any, base_rate: float) -> Any:  # noqa: ANN401 - arrays
    """
    Probabilities as a verdict tells them, from log-odds at the calibration's base rate.
    """
    shifted = sigmoid(prior_shift(np.asarray(log_odds), calibrated=BASE_RATE, deployed=base_rate))
    return np.array([round_significant(one) for one in shifted.tolist()])


class Verdicts:
    """
    Verdicts with these log-odds and coverage p-values, as a policy with this base rate tells them.
    """

    def __init__(self, template: ImageVerdictV1, *, base_rate: float = BASE_RATE) -> None:
        self._template = template
        self._base_rate = base_rate

    def show(self, watch: DriftWatch, log_odds: Any, coverage_p: Any) -> None:  # noqa: ANN401 - arrays
        """
        Let the watch see them, one after the other.
        """
        judged = self._template.calibration
        assert judged is not None
        for probability, p in zip(told(log_odds, self._base_rate).tolist(), coverage_p, strict=True):
            calibration = judged.model_copy(update={"coverage_p": float(p), "base_rate": self._base_rate})
            outcome = self._template.outcome.model_copy(update={"probability": probability})
            watch.saw(self._template.model_copy(update={"calibration": calibration, "outcome": outcome}))


@pytest.fixture(scope="module")
def template() -> ImageVerdictV1:
    """
    A verdict under the rule fused, of which only two numbers matter here.
    """
    judgement = a_fused_judgement()
    # Nothing of it is validated: the rest of a verdict takes no part.
    return ImageVerdictV1.model_construct(  # type: ignore[call-arg] # two fields are enough here
        calibration=judgement.calibration,
        outcome=OutcomeV1(
            status="abstained",
            label=None,
            decision="uncertain",
            action=judgement.action,
            score=0.5,
            probability=0.5,
            margin=0.0,
            reasons=(),
        ),
    )


def places(random: np.random.Generator, n: int) -> Any:  # noqa: ANN401 - an array
    """
    The coverage p-values of pictures like the bank's.
    """
    return random.integers(1, 402, n) / 401


def drift_of(watch: DriftWatch) -> dict[str, float | None]:
    """
    The distances by what they are of.
    """
    return {one.of: one.ks for one in watch.drift()}


@pytest.mark.parametrize("seed", range(5))
def test_distance_is_the_one_of_the_textbook(seed: int) -> None:
    """
    Equal to scipy's two-sample statistic, also where values are tied.
    """
    random = np.random.default_rng(seed)
    reference = np.sort(np.round(random.normal(size=300), seed % 3))
    sample = np.round(random.normal(0.3, 1.5, size=200), seed % 3)

    assert ks_distance(reference, sample) == pytest.approx(ks_2samp(reference, sample).statistic)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("base_rate", [0.5, 0.02])
def test_nothing_is_told_where_nothing_drifts(template: ImageVerdictV1, seed: int, base_rate: float) -> None:
    """
    Uploads like the calibration stay near 0, whatever base rate the policy assumes.
    """
    random = np.random.default_rng(seed)
    watch = DriftWatch()
    watch.hold_against(calibrated(random, base_rate=base_rate))
    Verdicts(template, base_rate=base_rate).show(watch, random.normal(-3, 2, 2_000), places(random, 2_000))
    found = drift_of(watch)

    assert found["score"] is not None
    assert found["score"] < 0.08
    assert found["distance"] is not None
    assert found["distance"] < 0.05


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_generated_uploads_move_scores_by_their_share_at_most(template: ImageVerdictV1, share: float) -> None:
    """
    What the alert rests on: while reals are as they were, the distance is at most the share of generated uploads.
    """
    random = np.random.default_rng(int(share * 100))
    watch = DriftWatch()
    watch.hold_against(calibrated(random))
    generated = random.uniform(size=2_000) < share
    log_odds = np.where(generated, random.normal(6, 2, 2_000), random.normal(-3, 2, 2_000))
    Verdicts(template).show(watch, log_odds, places(random, 2_000))
    found = drift_of(watch)["score"]

    assert found is not None
    assert abs(found - share) < 0.06


@pytest.mark.parametrize("seed", range(5))
def test_reals_that_look_otherwise_are_told(template: ImageVerdictV1, seed: int) -> None:
    """
    Scores that moved by one standard deviation come out at about 0.38, beyond the alert's 0.35, without any flag.
    """
    random = np.random.default_rng(seed)
    watch = DriftWatch()
    watch.hold_against(calibrated(random))
    Verdicts(template).show(watch, random.normal(-1, 2, 2_000), places(random, 2_000))
    found = drift_of(watch)

    assert found["score"] is not None
    assert 0.3 < found["score"] < 0.46
    assert found["distance"] is not None
    assert found["distance"] < 0.05


def test_uploads_far_from_the_bank_are_told(template: ImageVerdictV1) -> None:
    """
    A third of uploads farther from the bank than nearly all of its like moves the distances by as much, not the scores.
    """
    random = np.random.default_rng(3)
    watch = DriftWatch()
    watch.hold_against(calibrated(random))
    far = random.uniform(size=2_000) < 1 / 3
    Verdicts(template).show(watch, random.normal(-3, 2, 2_000), np.where(far, 1 / 401, places(random, 2_000)))
    found = drift_of(watch)

    assert found["distance"] is not None
    assert abs(found["distance"] - 1 / 3) < 0.05
    assert found["score"] is not None
    assert found["score"] < 0.08


def test_only_the_latest_uploads_count(template: ImageVerdictV1) -> None:
    """
    A drift that is over is forgotten when the window has passed it.
    """
    random = np.random.default_rng(4)
    watch = DriftWatch(window=500)
    watch.hold_against(calibrated(random))
    Verdicts(template).show(watch, np.full(500, 9.0), places(random, 500))
    before = drift_of(watch)["score"]
    Verdicts(template).show(watch, random.normal(-3, 2, 500), places(random, 500))
    after = drift_of(watch)["score"]

    assert before == pytest.approx(1.0)
    assert after is not None
    assert after < 0.1


def test_too_few_uploads_say_nothing(template: ImageVerdictV1) -> None:
    """
    Their number is told, and no distance.
    """
    random = np.random.default_rng(5)
    watch = DriftWatch(least=200)
    watch.hold_against(calibrated(random))
    Verdicts(template).show(watch, np.full(199, -3.0), places(random, 199))

    assert [(one.of, one.samples, one.ks) for one in watch.drift()] == [("score", 199, None), ("distance", 199, None)]


def test_another_calibration_begins_anew(template: ImageVerdictV1) -> None:
    """
    Verdicts of the bank before, late ones included, take no part; without a calibration nothing is told.
    """
    random = np.random.default_rng(6)
    watch = DriftWatch(least=1)
    watch.hold_against(calibrated(random))
    Verdicts(template).show(watch, [-3.0], [0.5])
    watch.hold_against(calibrated(random, name="f2"))
    Verdicts(template).show(watch, [-3.0], [0.5])

    assert [one.samples for one in watch.drift()] == [0, 0]
    watch.hold_against(None)
    assert [] == watch.drift()


def test_a_judgement_tells_its_reals() -> None:
    """
    As probabilities, sorted, at the policy's base rate; and the places that a new picture may take among distances.
    """
    judgement = judging_by()
    zone = (0.2, 0.8)
    found = Calibrated.of(judgement, grey_zone=zone, base_rate=judgement.base_rate)
    rarer = Calibrated.of(judgement, grey_zone=zone, base_rate=judgement.base_rate / 2)
    quantiles = found.score_quantiles((0.25, 0.5, 0.75))

    assert found.id == judgement.id
    assert np.sort(sigmoid(judgement.real_log_odds(zone))) == pytest.approx(found.scores, abs=1e-6)
    assert len(judgement.coverage.distance) + 1 == len(found.coverage)
    assert quantiles[0.5] == pytest.approx(np.median(found.scores))
    assert (rarer.scores <= found.scores).all()


def test_scores_that_were_tied_stay_tied(template: ImageVerdictV1) -> None:
    """
    An isotonic calibration gives many reals one value, and verdicts round: what was equal is equal on both sides.
    """
    reals = np.repeat([-25.0, -7.123456789, -1.987654321, 0.3, 4.2], 50)
    watch = DriftWatch(least=1)
    watch.hold_against(Calibrated("e1" * 32, 0.1, np.sort(told(reals, 0.1)), np.array([0.5, 1.0])))
    Verdicts(template, base_rate=0.1).show(watch, reals, np.full(250, 0.5))

    assert drift_of(watch)["score"] == 0
