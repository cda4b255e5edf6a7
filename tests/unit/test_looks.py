"""
Several looks at one picture: which decides, and what the verdict says of it.
"""

from dataclasses import replace

import pytest

from schemas.verdict import ImageVerdictV1
from tests.builders import a_judgement, facts, versions
from tests.fake_encoder import SPEC, FakeEncoder
from tests.fake_outcomes import ManualClock
from tests.hidden_frames import AS_WORKERS_DO, hiding_generated, scene, white_on_nothing
from tests.loop_rig import shipped_policy, small_bank
from tests.peers import assert_valid
from tests.sightings import a_hash
from tests.unit.test_bank_judge_fused import known
from worker.domain import Sighting
from worker.flow.bank_judge import BankJudge
from worker.flow.encoding import SightingMaker
from worker.outcomes import VerdictIssued
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.stages.looks import deciding_look
from worker.telemetry.metrics import InMemoryRecorder
from worker.views import GLOBAL_ONLY, Picture


@pytest.mark.parametrize(
    ("frames", "scores", "expected"),
    [
        ((0, 4, 9), (0.2, 0.9, 0.3), (4, None)),
        ((0, 4, 9), (0.4, 0.4, 0.4), (0, None)),
        ((0, 4, 9), (0.1, 0.5, 0.5), (4, None)),
        ((0, 0), (0.2, 0.6), (0, "grey")),
        ((0, 0), (0.6, 0.6), (0, "white")),
        ((0, 3, 3, 7), (0.1, 0.2, 0.7, 0.3), (3, "grey")),
    ],
)
def test_the_look_with_the_highest_score_decides(
    frames: tuple[int, ...], scores: tuple[float, ...], expected: tuple[int, str | None]
) -> None:
    """
    Whatever the order, the most generated look decides, the earliest among equals; frame and ground are told.
    """
    judgements = [a_judgement(score=score) for score in scores]
    found = deciding_look(judgements, facts(frames_scored=frames))

    assert max(scores) == found.score
    assert expected == (found.evidence.frame, found.evidence.ground)


def test_one_look_is_told_as_ever() -> None:
    """
    Of a picture that was looked at once nothing is said of frames.
    """
    judgement = a_judgement()

    assert deciding_look([judgement], facts(frames_scored=(0,))) is judgement


def test_facts_of_other_looks_are_refused() -> None:
    """
    Judgements and facts that do not belong together are a fault, never a guess.
    """
    with pytest.raises(ValueError, match="2 looks were judged, the facts tell of 3"):
        deciding_look([a_judgement(), a_judgement()], facts(frames_scored=(0, 1, 2)))


class Judged:
    """
    Decoder, encoder and judge as in a worker, for one micro-batch.
    """

    def __init__(self, limits: DecodeLimits = AS_WORKERS_DO) -> None:
        bank, policy, recorder, clock = small_bank(), shipped_policy(), InMemoryRecorder(), ManualClock()
        self.encoder = FakeEncoder()
        self.decoder = PillowDecoder(SPEC, limits, None)
        self._judge = BankJudge(bank, policy, versions(bank=bank.identity), clock, recorder)
        self._maker = SightingMaker(
            self.encoder, self._judge, GLOBAL_ONLY, batch_size=16, clock=clock, recorder=recorder
        )

    def sightings(self, *files: bytes) -> list[Sighting]:
        """
        The sightings of these files, made together.
        """
        pictures = []
        for data in files:
            content_hash = a_hash(data.hex())
            pictures.append(Picture(content_hash, self.decoder.decode(data, content_hash), 1.0))
        return [one for one in self._maker.make(pictures).results if isinstance(one, Sighting)]

    def score_of(self, sighting: Sighting) -> float | None:
        """
        The score of a sighting.
        """
        (outcome,) = self._judge.judge(known([sighting]))
        assert isinstance(outcome, VerdictIssued)
        return outcome.verdict.outcome.score

    def verdicts(self, *files: bytes) -> list[ImageVerdictV1]:
        """
        The verdicts on these files, judged together; each valid to a peer.
        """
        issued = [
            one.verdict for one in self._judge.judge(known(self.sightings(*files))) if isinstance(one, VerdictIssued)
        ]
        for verdict in issued:
            assert_valid("image.verdict.v1", verdict.model_dump_json(by_alias=True).encode())
        return issued


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP"])
@pytest.mark.parametrize(("count", "at"), [(3, 1), (40, 6)])
def test_a_hidden_picture_is_decided_as_it_would_be_alone(name: str, count: int, at: int) -> None:
    """
    A generated reference in a later frame of a real scene decides the verdict, which names the frame.
    """
    hidden, alone = hiding_generated(name, count, at)
    verdict, by_itself, without = Judged().verdicts(hidden, alone, scene(name))
    assert verdict.evidence is not None
    assert by_itself.evidence is not None

    assert ("ai_generated", "real") == (by_itself.outcome.label, without.outcome.label)
    assert by_itself.outcome.decision == verdict.outcome.decision
    assert verdict.outcome.score == pytest.approx(by_itself.outcome.score, abs=0.02)
    assert at == verdict.evidence.frame
    assert by_itself.evidence.frame is None
    assert by_itself.evidence.neighbours[0].entry_id == verdict.evidence.neighbours[0].entry_id
    assert verdict.image is not None
    assert at in verdict.image.frames_scored


@pytest.mark.parametrize("at", [3, 35])
def test_an_animation_beyond_the_budget_is_generated_or_undecided(at: int) -> None:
    """
    What is generated among the frames that were seen decides; where it may lie behind them, nothing is decided.
    """
    hidden, _ = hiding_generated("PNG", 40, at)
    (verdict,) = Judged(replace(AS_WORKERS_DO, max_animation_pixels=200_000)).verdicts(hidden)
    found = verdict.outcome

    assert verdict.image is not None
    assert ("FRAMES_UNREACHED",) == verdict.image.warnings
    expected = ("decided", "ai_generated") if at == 3 else ("abstained", None)
    assert expected == (found.status, found.label)
    assert ("FRAMES_UNSEEN" in [reason.code for reason in found.reasons]) == (at != 3)


def test_what_shows_on_grey_alone_is_decided_by_the_grey_look() -> None:
    """
    A picture in white on nothing has two looks; the verdict is that of the one that seems more generated, and says so.
    """
    judged = Judged()
    data = white_on_nothing()
    (verdict,) = judged.verdicts(data)
    (sighting,) = judged.sightings(data)
    once = sighting.facts.model_copy(update={"frames_scored": (0,)})
    scores = [judged.score_of(replace(look, facts=once, further=())) or 0.0 for look in sighting.looks]
    assert verdict.evidence is not None
    assert verdict.image is not None

    assert (0, 0) == verdict.image.frames_scored
    assert 2 == len(set(scores))
    assert max(scores) == verdict.outcome.score
    assert ("white", "grey")[scores.index(max(scores))] == verdict.evidence.ground


def test_a_still_picture_costs_one_look_and_companions_cost_it_nothing() -> None:
    """
    Beside an animation in its micro-batch a still picture comes out bit for bit as alone, with one view encoded.
    """
    hidden, still = hiding_generated("PNG", 12, 5)
    together, alone = Judged(), Judged()
    _, beside = together.sightings(hidden, still)
    (by_itself,) = alone.sightings(still)

    assert by_itself.embedding.vector.tobytes() == beside.embedding.vector.tobytes()
    assert (by_itself.facts, ()) == (beside.facts, beside.further)
    assert [1] == alone.encoder.batches
    assert [9] == together.encoder.batches
