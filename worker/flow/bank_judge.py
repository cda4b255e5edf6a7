"""
The judge that asks a bank, and its fitted judgement where it has one: match, assess, decide, report.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from worker.domain import Judgement, RawEvent, Sighting, Upload
from worker.errors import EventUnreadable
from worker.flow.fitted_bank import FittedBank
from worker.flow.judged_lately import JudgedLately
from worker.flow.travellers import Failed, Known
from worker.outcomes import Outcome
from worker.policy import Policy
from worker.ports import Bank, Clock, Recorder
from worker.stages.assess import Assessed
from worker.stages.decide import Terms, decide, thresholds_of
from worker.stages.intake import KEEP_BYTES, dead_letter_of
from worker.stages.letters import has_letter, letter_of_failure
from worker.stages.looks import deciding_look
from worker.stages.match import find_neighbours
from worker.stages.report import (
    FailureRuling,
    Handled,
    RunVersions,
    facts_of_bytes,
    verdict_of_failure,
    verdict_of_judgement,
)


@dataclass(frozen=True, slots=True)
class _Judged:
    """
    What a batch came to, each judgement beside its upload; the durations are None where nothing was asked.
    """

    judgements: Sequence[Judgement]
    search_ms: float | None
    assess_ms: float | None


@dataclass(frozen=True, slots=True)
class BankJudge:
    """
    Implements ``worker.flow.judging.Judge``; what it says never changes.

    ``keep_bytes``: what of a record a dead letter may carry. ``fitted`` is there if and only if the
    policy's rule comes to ``fused`` with this bank. ``lately`` saves it from judging again what keeps coming again.
    """

    bank: Bank
    policy: Policy
    versions: RunVersions
    clock: Clock
    recorder: Recorder
    keep_bytes: int = KEEP_BYTES
    fitted: FittedBank | None = None
    lately: JudgedLately = field(default_factory=JudgedLately, init=False, repr=False, compare=False)
    _terms: dict[str, Terms] = field(default_factory=dict, init=False, repr=False, compare=False)

    def judge(self, known: Sequence[Known]) -> list[Outcome]:
        """
        One verdict per upload, in order, with one search and one assessment for all looks at all of them.

        A sighting that this process shared before, and that was judged since, is not looked up again.
        """
        surfaces = [self._terms_of(one.passenger.upload) for one in known]
        found = [self.lately.of(one.sighting, name) for one, (name, _) in zip(known, surfaces, strict=True)]
        anew = [(one, on) for one, on, judgement in zip(known, surfaces, found, strict=True) if judgement is None]
        judged = self._judge_anew(anew)
        made = iter(judged.judgements)
        outcomes: list[Outcome] = []
        for one, (name, _), recalled in zip(known, surfaces, found, strict=True):
            handled = Handled(
                facts=one.sighting.facts,
                provenance=one.provenance,
                produced_at_s=self.clock.wall_s(),
                fetch_ms=one.passenger.fetch_ms,
                search_ms=judged.search_ms if recalled is None else None,
                assess_ms=judged.assess_ms if recalled is None else None,
                supersedes=one.passenger.supersedes,
            )
            judgement = next(made) if recalled is None else recalled
            issued = verdict_of_judgement(
                one.passenger.upload, judgement, surface=name, handled=handled, versions=self.versions
            )
            outcomes.append(issued)
        return outcomes

    def _judge_anew(self, asked: Sequence[tuple[Known, tuple[str, Terms]]]) -> _Judged:
        if not asked:
            return _Judged([], None, None)
        began_s = self.clock.monotonic_s()
        looks = [look for one, _ in asked for look in one.sighting.looks]
        neighbourhoods = find_neighbours(self.bank, [look.embedding for look in looks], k=self.policy.rule.k)
        search_s = self.clock.monotonic_s() - began_s
        self.recorder.observe("search_seconds", search_s)
        assessed, assess_ms = self._assess(looks)
        found = iter(zip(neighbourhoods, assessed, strict=True))
        judgements = []
        for one, (name, terms) in asked:
            facts = one.sighting.facts
            of_looks = [
                decide(neighbourhood, facts, terms=terms, assessed=assessment)
                for neighbourhood, assessment in (next(found) for _ in one.sighting.looks)
            ]
            judgement = deciding_look(of_looks, facts)
            judgements.append(judgement)
            if _may_come_again(one):
                self.lately.remember(one.sighting, name, judgement)
        return _Judged(judgements, search_s * 1000, assess_ms)

    def wants_shift(self, sightings: Sequence[Sighting]) -> Sequence[bool]:
        """
        Which of these the fitted judgement's cheap heads leave in the policy's grey zone; none without one.
        """
        if self.fitted is None or not sightings:
            return [False] * len(sightings)
        wanted = self.fitted.wants_shift(sightings)
        self.recorder.count("grey_zone_total", sum(wanted), result="within")
        self.recorder.count("grey_zone_total", len(wanted) - sum(wanted), result="outside")
        return wanted

    def fail(self, failed: Failed) -> Outcome:
        """
        The failed verdict of an upload, with what is known of its bytes, and its dead letter where it is to have one.
        """
        upload, passenger, now_s = failed.upload, failed.passenger, self.clock.wall_s()
        name, terms = self._terms_of(upload)
        judgement_id = None if self.fitted is None else self.fitted.judgement.id
        ruling = FailureRuling(name, thresholds_of(terms, judgement_id), terms.surface.failed)
        handled = Handled(
            facts=None if passenger is None else facts_of_bytes(passenger.content_hash, passenger.byte_length),
            provenance=failed.provenance,
            produced_at_s=now_s,
            fetch_ms=None if passenger is None else passenger.fetch_ms,
            supersedes=failed.supersedes,
        )
        issued = verdict_of_failure(upload, failed.failure, ruling=ruling, handled=handled, versions=self.versions)
        # Only a live worker answers for the upload: what a replay or a scan cannot judge waits for nobody.
        if self.versions.mode != "live" or not has_letter(failed.failure.code):
            return issued
        letter = letter_of_failure(
            upload, failed.failure, worker_version=self.versions.worker, now_s=now_s, keep_bytes=self.keep_bytes
        )
        return replace(issued, letter=letter)

    def dead_letter(self, raw: RawEvent, unreadable: EventUnreadable) -> Outcome:
        """
        The dead letter of a record that is no upload event.
        """
        return dead_letter_of(
            raw, unreadable, worker_version=self.versions.worker, now_s=self.clock.wall_s(), keep_bytes=self.keep_bytes
        )

    def _assess(self, sightings: Sequence[Sighting]) -> tuple[Sequence[Assessed | None], float | None]:
        if self.fitted is None or not sightings:
            return [None] * len(sightings), None
        began_s = self.clock.monotonic_s()
        assessed = self.fitted.assess(sightings)
        assess_s = self.clock.monotonic_s() - began_s
        self.recorder.observe("assess_seconds", assess_s)
        return assessed, assess_s * 1000

    def _terms_of(self, upload: Upload) -> tuple[str, Terms]:
        context = upload.data.context
        name, surface = self.policy.for_surface(context.surface if context else None)
        terms = self._terms.get(name)
        if terms is None:
            terms = Terms(self.policy.rule, surface, self.bank.identity.positive, self.policy.provenance)
            self._terms[name] = terms
        return name, terms


def _may_come_again(known: Known) -> bool:
    """
    Whether its sighting was shared with another upload: of most, only one upload ever comes.
    """
    return known.provenance.tier == "process" or known.provenance.status == "coalesced"
