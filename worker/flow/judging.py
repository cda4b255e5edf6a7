"""
From what is known of an upload to its outcome: match, decide, report.
"""

from collections.abc import Sequence
from typing import Protocol

from worker.domain import RawEvent, Sighting
from worker.errors import EventUnreadable
from worker.flow.travellers import Failed, Known
from worker.outcomes import Outcome


class Judge(Protocol):
    """
    Turns what the stages found into outcomes. Called by many threads; holds no state that changes.
    """

    def judge(self, known: Sequence[Known]) -> list[Outcome]:
        """
        One verdict per upload, in order, with one search for all of them.
        """

    def wants_shift(self, sightings: Sequence[Sighting]) -> Sequence[bool]:
        """
        Which of these are in the grey zone, where the embedding shift of perturbed copies is worth more forwards.

        In order. Whether a shift is known already must not matter to the answer, or a sighting would be judged
        otherwise when it is recalled than when it is new. Asked only where the bank's views ask for perturbation; a
        judge without a grey zone answers False to all.
        """

    def fail(self, failed: Failed) -> Outcome:
        """
        The failed verdict of an upload.
        """

    def dead_letter(self, raw: RawEvent, unreadable: EventUnreadable) -> Outcome:
        """
        The dead letter of a record that is no upload event.
        """
