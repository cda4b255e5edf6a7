"""
What keeps coming again is judged once, as long as its sighting is kept, and says the same.
"""

from collections.abc import Sequence
from dataclasses import replace
from sys import getrefcount
from weakref import ref

from schemas.verdict import ImageVerdictV1
from tests.builders import a_judgement, an_upload, versions
from tests.fake_encoder import FakeEncoder
from tests.fake_outcomes import ManualClock
from tests.loop_rig import shipped_policy, small_bank
from tests.sightings import a_hash, a_sighting
from worker.domain import BankIdentity, Embedding, Neighbourhood, Provenance, Sighting
from worker.flow.bank_judge import BankJudge
from worker.flow.judged_lately import JudgedLately
from worker.flow.lines import Slot
from worker.flow.single_flight import SingleFlight
from worker.flow.travellers import Known, Passenger
from worker.outcomes import VerdictIssued
from worker.telemetry.metrics import InMemoryRecorder

CAT, DOG = a_hash("cat"), a_hash("dog")
DIM = FakeEncoder().fingerprint.dim
SHARED = Provenance("hit", "process")
REFERENCES_OF_A_LOCAL = 2
"""The variable, and the argument of whoever counts."""


class CountingBank:
    """
    The small bank; ``asked`` is how many embeddings were looked up in it.
    """

    def __init__(self) -> None:
        self.identity: BankIdentity = small_bank().identity
        self.asked = 0

    def nearest(self, embeddings: Sequence[Embedding], k: int) -> Sequence[Neighbourhood]:
        """
        As the bank.
        """
        self.asked += len(embeddings)
        return small_bank().nearest(embeddings, k)


def test_the_third_time_a_sighting_comes_nothing_is_looked_up() -> None:
    """
    It is judged when it is new and when it is first shared; from then on its judgement is known, and is the same.
    """
    bank, seen = CountingBank(), a_sighting(CAT, dim=DIM)
    judge = a_judge(bank)

    first, second, third = (verdict_of(judge, seen, provenance) for provenance in (Provenance("miss"), SHARED, SHARED))

    assert bank.asked == 2
    assert without_handling(first) == without_handling(second) == without_handling(third)
    assert second.timing.search_ms is not None
    assert third.timing.search_ms is None


def test_what_comes_once_is_not_remembered() -> None:
    """
    Of most sightings only one upload ever comes: neither a new one nor one out of Redis is kept for another.
    """
    judge, seen = a_judge(CountingBank()), a_sighting(CAT, dim=DIM)

    verdict_of(judge, seen, Provenance("miss"))
    verdict_of(judge, seen, Provenance("hit", "redis"))

    assert len(judge.lately) == 0


def test_known_and_unknown_ones_are_told_apart_in_one_batch() -> None:
    """
    The outcomes are in the order of the uploads, and each is that of its own picture.
    """
    bank, cat, dog = CountingBank(), a_sighting(CAT, dim=DIM), a_sighting(DOG, dim=DIM)
    judge = a_judge(bank)
    verdict_of(judge, cat, SHARED)

    outcomes = judge.judge([known(one, SHARED) for one in (dog, cat, dog)])

    images = [issued(one).image for one in outcomes]
    assert [None if image is None else image.sha256 for image in images] == [DOG, CAT, DOG]
    assert bank.asked == 3
    assert without_handling(issued(outcomes[0])) == without_handling(issued(outcomes[2]))


def test_an_equal_sighting_that_was_read_anew_is_judged_anew() -> None:
    """
    A sighting is known by being the same object, and on the surface on which it was judged.
    """
    lately, seen, judgement = JudgedLately(), a_sighting(CAT), a_judgement()

    lately.remember(seen, "post", judgement)

    assert lately.of(seen, "post") is judgement
    assert lately.of(seen, "avatar") is None
    assert lately.of(replace(seen), "post") is None


def test_a_judgement_goes_with_its_sighting() -> None:
    """
    Whoever forgets a sighting has forgotten what was made of it, and need not know of it.
    """
    judge = a_judge(CountingBank())
    flights: SingleFlight[str] = SingleFlight(ManualClock(), recent=8)
    flights.board(CAT, "first")
    flights.land(CAT, a_sighting(CAT, dim=DIM))
    landed = flights.board(CAT, "second")
    assert isinstance(landed, Sighting)
    verdict_of(judge, landed, SHARED)
    del landed
    kept = len(judge.lately)

    flights.forget([CAT])

    assert (kept, len(judge.lately)) == (1, 0)


def test_a_judge_that_is_exchanged_goes_with_all_that_it_said() -> None:
    """
    At once, and not when the garbage collector comes by: sightings live longer than a judge does.
    """
    seen, judgement = a_sighting(CAT), a_judgement()
    lately = JudgedLately()
    lately.remember(seen, "post", judgement)
    gone = ref(lately)

    del lately

    assert gone() is None
    assert getrefcount(judgement) == REFERENCES_OF_A_LOCAL


def a_judge(bank: CountingBank) -> BankJudge:
    """
    A judge by votes, under the shipped policy.
    """
    return BankJudge(bank, shipped_policy(), versions(bank=bank.identity), ManualClock(), InMemoryRecorder())


def known(seen: Sighting, provenance: Provenance) -> Known:
    """
    An upload whose picture this is.
    """
    upload = an_upload()
    return Known(Passenger(Slot(upload.raw), upload, CAT, 83_211, 1.0), seen, provenance)


def verdict_of(judge: BankJudge, seen: Sighting, provenance: Provenance) -> ImageVerdictV1:
    """
    What the judge issues on it.
    """
    return issued(judge.judge([known(seen, provenance)])[0])


def issued(outcome: object) -> ImageVerdictV1:
    """
    The verdict of an outcome.
    """
    assert isinstance(outcome, VerdictIssued)
    return outcome.verdict


def without_handling(verdict: ImageVerdictV1) -> dict[str, object]:
    """
    All that a verdict says but how the upload was handled.
    """
    return verdict.model_dump(exclude={"timing", "cache"})
