"""
The judge that asks a bank: match, decide, report.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from worker.domain import Outcome, Provenance, RawEvent, Upload
from worker.errors import EventUnreadable
from worker.flow.travellers import Failed, Known
from worker.policy import Policy, SurfacePolicy
from worker.ports import Bank, Clock, Recorder
from worker.stages.decide import decide, thresholds_of
from worker.stages.intake import KEEP_BYTES, dead_letter_of
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
class BankJudge:
    """
    Implements ``worker.flow.judging.Judge``; holds nothing that changes.

    ``keep_bytes``: what of an unreadable record a dead letter may carry.
    """

    bank: Bank
    policy: Policy
    versions: RunVersions
    clock: Clock
    recorder: Recorder
    keep_bytes: int = KEEP_BYTES

    def judge(self, known: Sequence[Known]) -> list[Outcome]:
        """
        One verdict per upload, in order, with one search for all of them.
        """
        began_s = self.clock.monotonic_s()
        embeddings = [one.sighting.embedding for one in known]
        neighbourhoods = find_neighbours(self.bank, embeddings, k=self.policy.rule.k)
        search_s = self.clock.monotonic_s() - began_s
        self.recorder.observe("search_seconds", search_s)
        outcomes: list[Outcome] = []
        for one, neighbourhood in zip(known, neighbourhoods, strict=True):
            upload, facts = one.passenger.upload, one.sighting.facts
            name, surface = self._surface_of(upload)
            judgement = decide(
                neighbourhood,
                facts,
                rule=self.policy.rule,
                surface=surface,
                positive=self.bank.identity.positive,
            )
            handled = Handled(
                facts=facts,
                provenance=one.provenance,
                produced_at_s=self.clock.wall_s(),
                fetch_ms=one.passenger.fetch_ms,
                search_ms=search_s * 1000,
            )
            issued = verdict_of_judgement(upload, judgement, surface=name, handled=handled, versions=self.versions)
            outcomes.append(issued)
        return outcomes

    def fail(self, failed: Failed) -> Outcome:
        """
        The failed verdict of an upload, with what is known of its bytes.
        """
        upload, passenger = failed.upload, failed.passenger
        name, surface = self._surface_of(upload)
        ruling = FailureRuling(name, thresholds_of(self.policy.rule, surface), surface.failed)
        handled = Handled(
            facts=None if passenger is None else facts_of_bytes(passenger.content_hash, passenger.byte_length),
            provenance=Provenance("not_reached"),
            produced_at_s=self.clock.wall_s(),
            fetch_ms=None if passenger is None else passenger.fetch_ms,
        )
        return verdict_of_failure(upload, failed.failure, ruling=ruling, handled=handled, versions=self.versions)

    def dead_letter(self, raw: RawEvent, unreadable: EventUnreadable) -> Outcome:
        """
        The dead letter of a record that is no upload event.
        """
        return dead_letter_of(
            raw, unreadable, worker_version=self.versions.worker, now_s=self.clock.wall_s(), keep_bytes=self.keep_bytes
        )

    def _surface_of(self, upload: Upload) -> tuple[str, SurfacePolicy]:
        context = upload.data.context
        return self.policy.for_surface(context.surface if context else None)
