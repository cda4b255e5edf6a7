"""
The account of a stress run, with each fault planted: it is found, and named.
"""

import json
from typing import Any

import pytest

from tests.golden_events import GOLDEN
from worker.bench.conservation import Balance, OutcomeRead, Stored, balance, outcome_of

RUN = "stress-0123abcd"
VERDICTS, LETTERS = "verdicts", "letters"


def upload(number: int, *, partition: int = 0) -> Stored:
    """
    The upload of this number, at the offset of the same number.
    """
    return Stored(f"{RUN}-{number}", (partition, number))


def verdict(number: int, place: int | None = None, **changed: Any) -> OutcomeRead:  # noqa: ANN401 - of an outcome
    """
    A verdict on that upload, at the offset of the same number unless said otherwise.
    """
    told: dict[str, Any] = {
        "topic": VERDICTS,
        "at": (0, number if place is None else place),
        "event_id": f"{RUN}-{number}",
        "answers": (0, number),
        "identity": f"verdict-{number}",
        "status": "decided",
        "end": True,
        "attempt": 1,
        "arrived_s": float(number),
        "timing": {},
    }
    return OutcomeRead(**(told | changed))


def kinds(found: Balance) -> dict[str, int]:
    """
    The faults, and how often each.
    """
    return {fault.kind: fault.count for fault in found.faults}


UPLOADS = [upload(number) for number in range(6)]
VERDICTS_IN_ORDER = [verdict(number) for number in range(6)]


def test_a_run_in_which_all_went_well() -> None:
    """
    Each upload has one end, in order: nothing is wrong, and each end is known by its event.
    """
    found = balance(UPLOADS, VERDICTS_IN_ORDER, run=RUN)

    assert () == found.faults
    assert {one.event_id for one in UPLOADS} == set(found.ends)


def test_an_upload_without_an_outcome_is_missing() -> None:
    """
    It is named, with its place in the upload topic.
    """
    found = balance(UPLOADS, VERDICTS_IN_ORDER[:3] + VERDICTS_IN_ORDER[4:], run=RUN)

    assert {"missing": 1} == kinds(found)
    assert (f"{RUN}-3 at 0@3",) == found.faults[0].examples


def test_an_upload_with_two_different_outcomes_was_answered_twice() -> None:
    """
    Another verdict id is another verdict.
    """
    found = balance(UPLOADS, [*VERDICTS_IN_ORDER, verdict(2, 6, identity="another")], run=RUN)

    assert {"twice": 1} == kinds(found)
    assert (f"{RUN}-2: decided in verdicts at 0@2, decided in verdicts at 0@6",) == found.faults[0].examples


def test_the_same_verdict_again_is_repeated() -> None:
    """
    What at_least_once may do after a crash is told apart from two verdicts; the first of them counts for order.
    """
    found = balance(UPLOADS, [*VERDICTS_IN_ORDER, verdict(2, 6)], run=RUN)

    assert {"repeated": 1} == kinds(found)


def test_two_that_changed_places_are_out_of_order() -> None:
    """
    The one that should have come first is named, and whom it came after.
    """
    swapped = [verdict(0), verdict(1), verdict(3, 2), verdict(2, 3), verdict(4), verdict(5)]
    found = balance(UPLOADS, swapped, run=RUN)

    assert {"out_of_order": 1} == kinds(found)
    assert (f"{RUN}-2 at 0@2 was answered after {RUN}-3 at 0@3",) == found.faults[0].examples


def test_between_partitions_there_is_no_order() -> None:
    """
    Uploads of two partitions may be answered in any turn; so may outcomes in two partitions of the verdict topic.
    """
    uploads = [upload(0), upload(1, partition=1)]
    mixed = [verdict(1, 0, answers=(1, 1)), verdict(0, 1)]
    apart = [verdict(1, at=(0, 7)), verdict(0, at=(1, 9))]

    assert () == balance(uploads, mixed, run=RUN).faults
    assert () == balance([upload(0), upload(1)], apart, run=RUN).faults


def test_who_waited_in_a_retry_topic_has_left_the_line() -> None:
    """
    A later attempt may end behind later uploads.
    """
    found = balance(UPLOADS[:2], [verdict(1, 0), verdict(0, 1, attempt=2)], run=RUN)

    assert () == found.faults


@pytest.mark.parametrize(
    ("stranger", "why"),
    [
        (verdict(9), "was never sent"),
        (verdict(2, 6, answers=(0, 4)), "not where it lies"),
        (verdict(9, 6, answers=(0, 2)), "not where it lies"),
    ],
    ids=["no upload of ours", "another place", "another event at our place"],
)
def test_what_answers_no_upload_of_the_run_is_foreign(stranger: OutcomeRead, why: str) -> None:
    """
    An outcome in the name of the run that fits none of its uploads is a fault, whatever else is answered.
    """
    found = balance(UPLOADS, [*VERDICTS_IN_ORDER, stranger], run=RUN)

    assert {"foreign": 1} == kinds(found)
    assert why in found.faults[0].examples[0]


def test_other_uploads_are_nobodys_concern() -> None:
    """
    On a topic that others use, too, their verdicts and letters are passed over.
    """
    others = [
        verdict(7, event_id="upload-7", answers=(0, 70)),
        verdict(8, event_id=None, answers=(0, 80), topic=LETTERS),
        verdict(8, event_id="stress-ffffffff-1", answers=(0, 81)),
    ]
    found = balance(UPLOADS, [*VERDICTS_IN_ORDER, *others], run=RUN)

    assert () == found.faults


def test_a_letter_beside_a_verdict_is_no_second_end_and_alone_it_is_one() -> None:
    """
    A letter of stage parse is the only answer that there is; it may not even know the event's id.
    """
    beside = verdict(0, 0, topic=LETTERS, end=False, status="dead_letter", identity="dead letter")
    alone = verdict(1, 1, topic=LETTERS, event_id=None, status="dead_letter", identity="dead letter")
    found = balance(UPLOADS[:2], [verdict(0, status="failed"), beside, alone], run=RUN)

    assert () == found.faults
    assert "dead_letter" == found.ends[f"{RUN}-1"].status
    assert {"missing": 1} == kinds(balance(UPLOADS[:1], [beside], run=RUN))


def test_an_event_that_kafka_has_not_acknowledged_may_be_answered() -> None:
    """
    It is neither missing without an outcome nor foreign with one.
    """
    assert () == balance([], [verdict(0)], run=RUN, unsure=[f"{RUN}-0"]).faults
    assert () == balance([], [], run=RUN, unsure=[f"{RUN}-0"]).faults
    assert {"foreign": 1} == kinds(balance([], [verdict(0)], run=RUN))


def test_no_more_examples_are_named_than_anybody_reads() -> None:
    """
    All are counted, and five named.
    """
    found = balance([upload(number) for number in range(50)], [], run=RUN)

    assert 50 == found.count("missing")
    assert 5 == len(found.faults[0].examples)


@pytest.mark.parametrize("name", ["verdict_decided", "verdict_failed", "verdict_fused"])
def test_verdicts_of_the_contract_are_read(name: str) -> None:
    """
    Of a verdict: which event, where it lay, how it ended, and its timing.
    """
    data = _golden(name)
    found = outcome_of(VERDICTS, (3, 7), json.dumps(data).encode(), 1.5)

    assert found is not None
    assert (data["verdict_id"], data["input"]["event_id"]) == (found.identity, found.event_id)
    assert (data["input"]["partition"], data["input"]["offset"]) == found.answers
    assert (data["outcome"]["status"], True, data["timing"]) == (found.status, found.end, found.timing)
    assert ((3, 7), 1.5) == (found.at, found.arrived_s)


def test_dead_letters_of_the_contract_are_read() -> None:
    """
    A letter is an end where its record could not be read, and none where a verdict stands beside it.
    """
    data = _golden("dead_letter")
    end = outcome_of(LETTERS, (0, 0), json.dumps(data | {"error": data["error"] | {"stage": "parse"}}).encode(), 0.0)
    beside = outcome_of(LETTERS, (0, 0), json.dumps(data | {"error": data["error"] | {"stage": "fetch"}}).encode(), 0.0)

    assert end is not None
    assert beside is not None
    assert (True, False) == (end.end, beside.end)
    assert (data["original"]["partition"], data["original"]["offset"]) == end.answers


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"{}", b'{"verdict_id": 1}', b'{"original": {}}', b"\xff"])
def test_what_is_neither_is_passed_over(value: bytes) -> None:
    """
    Others may write to the topic, anything.
    """
    assert outcome_of(VERDICTS, (0, 0), value, 0.0) is None


def _golden(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((GOLDEN / "1.1" / f"{name}.json").read_text())["value"]
    return data
