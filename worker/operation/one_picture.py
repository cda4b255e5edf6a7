"""
One picture judged as a worker would judge it, outside any pipeline: for whoever shows to people what decided.

Part of the composition root. What is made of the judgement, and how the picture is drawn, stands elsewhere.
"""

from worker.adapters.system_clock import SystemClock
from worker.domain import ContentHash, Judgement
from worker.errors import UploadFailed
from worker.flow.bank_judge import BankJudge
from worker.flow.encoding import SightingMaker
from worker.ports import Encoder
from worker.stages.decide import Terms, decide
from worker.stages.looks import deciding_look
from worker.stages.match import find_neighbours
from worker.telemetry.metrics import InMemoryRecorder
from worker.views import DecodedPicture, Picture, ViewSpec


def judged_picture(
    decoded: DecodedPicture, judge: BankJudge, encoder: Encoder, *, views: ViewSpec, batch_size: int
) -> Judgement:
    """
    The judgement of a picture on the default surface, by the look that decides; its evidence names that look.

    Which look it is depends on no surface: scores are the same on all of them. Raises ``UploadFailed`` for a picture
    that cannot be encoded.
    """
    maker = SightingMaker(
        encoder, judge, views, batch_size=batch_size, clock=SystemClock(), recorder=InMemoryRecorder()
    )
    (sighting,) = maker.make([Picture(ContentHash(decoded.facts.sha256), decoded, decode_ms=0.0)]).results
    if isinstance(sighting, UploadFailed):
        raise sighting
    rule, looks = judge.policy.rule, sighting.looks
    _, surface = judge.policy.for_surface(None)
    terms = Terms(rule, surface, judge.bank.identity.positive, judge.policy.provenance)
    near = find_neighbours(judge.bank, [look.embedding for look in looks], k=rule.k)
    assessed = [None] * len(looks) if judge.fitted is None else judge.fitted.assess(looks)
    judgements = [
        decide(neighbourhood, sighting.facts, terms=terms, assessed=assessment)
        for neighbourhood, assessment in zip(near, assessed, strict=True)
    ]
    return deciding_look(judgements, sighting.facts)
