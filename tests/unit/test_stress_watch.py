"""
How long a stress run watches: until each of its uploads has an end of its own, whatever else is answered meanwhile.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.stand_in_platform import Answer, StandInPlatform
from worker.adapters.kafka_platform import PublishedEvent
from worker.adapters.kafka_stress import ReadRecord
from worker.bench.conservation import balance
from worker.bench.stress import StressPlan, run_stress

RUN = "stress-watched"
UPLOADS = 6


def an_event(number: int) -> PublishedEvent:
    """
    The upload of this number.
    """
    return PublishedEvent(b"key", b"{}", (("ce_id", f"{RUN}-{number}".encode()),))


def last_one_late(number: int) -> Sequence[Answer]:
    """
    All are answered at once, but for the last.
    """
    return [(number, 0.3 if number == UPLOADS - 1 else 0.0)]


class Haunted(StandInPlatform):
    """
    Once everything was sent there is one outcome more, which names ``event_id`` at a place that is not its own.
    """

    def __init__(self, event_id: str) -> None:
        super().__init__(last_one_late)
        self._event_id: str | None = event_id

    def read(self, wait_s: float) -> Sequence[ReadRecord]:
        """
        The verdicts that are due, and once the stranger.
        """
        found = list(super().read(wait_s))
        if self._event_id is not None and len(self.sent) == UPLOADS:
            data = {
                "verdict_id": "stranger",
                "input": {"event_id": self._event_id, "partition": 1, "offset": 70},
                "outcome": {"status": "decided"},
                "timing": {},
            }
            found.append(ReadRecord("verdicts", (1, 900), json.dumps(data).encode(), time.monotonic()))
            self._event_id = None
        return found


@pytest.mark.parametrize("event_id", [f"{RUN}-900", f"{RUN}-{UPLOADS - 1}"])
def test_what_answers_no_upload_ends_none(event_id: str) -> None:
    """
    An outcome of an upload that was never sent, or of another place, does not end the watch before the last is there.
    """
    plan = StressPlan(RUN, [0.0] * UPLOADS, an_event, patience_s=20.0, settle_s=0.02)
    run = run_stress(plan, Haunted(event_id))
    found = balance(run.stored.values(), run.outcomes, run=RUN)

    assert {f"{RUN}-{number}" for number in range(UPLOADS)} == run.ended == set(found.ends)
    assert (0, 1) == (found.count("missing"), found.count("foreign"))


def test_a_dead_letter_without_an_id_ends_the_upload_of_its_place() -> None:
    """
    An upload whose event could not be read is answered by where it lay, and nothing is waited for after that.
    """

    class Unread(StandInPlatform):
        """
        Nothing can be read: all verdicts are letters that name a place.
        """

        def read(self, wait_s: float) -> Sequence[ReadRecord]:
            """
            The same outcomes as letters.
            """
            return [_as_letter(one) for one in super().read(wait_s)]

    began_s = time.monotonic()
    plan = StressPlan(RUN, [0.0] * UPLOADS, an_event, patience_s=100.0, settle_s=0.02)
    run = run_stress(plan, Unread())

    assert UPLOADS == len(run.ended)
    assert time.monotonic() - began_s < 60


def _as_letter(record: ReadRecord) -> ReadRecord:
    asked = json.loads(record.value)["input"]
    letter = {"event_id": None, "original": asked, "error": {"stage": "parse"}}
    return replace(record, topic="letters", value=json.dumps(letter).encode())
