"""
From what is known of an upload to its outcome: match, decide, report.
"""

from collections.abc import Sequence
from typing import Protocol

from worker.domain import Outcome, RawEvent
from worker.errors import EventUnreadable
from worker.flow.travellers import Failed, Known


class Judge(Protocol):
    """
    Turns what the stages found into outcomes. Called by many threads; holds no state that changes.
    """

    def judge(self, known: Sequence[Known]) -> list[Outcome]:
        """
        One verdict per upload, in order, with one search for all of them.
        """

    def fail(self, failed: Failed) -> Outcome:
        """
        The failed verdict of an upload.
        """

    def dead_letter(self, raw: RawEvent, unreadable: EventUnreadable) -> Outcome:
        """
        The dead letter of a record that is no upload event.
        """
