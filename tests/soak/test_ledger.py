"""
The checker itself: whatever it is there to find is brought about here, and it finds it.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.outcome_reader import Outcome
from tests.platform_side import Event, Published
from tests.soak.fleet import DAMAGED_EVERY, UNREADABLE_EVERY, an_upload
from tests.soak.ledger import Sent, compare
from tests.soak.scale import SHORT, Scale
from tests.soak.tally import Tally, as_json, as_table

COUNT = 60


@cache
def published(count: int = COUNT) -> tuple[Published, ...]:
    """
    Uploads of every kind in one partition.
    """
    return tuple(Published(an_upload(number), (0, number)) for number in range(count))


def answered(one: Published, place: int, *, verdict_id: str = "") -> Outcome:
    """
    The outcome that an upload should have, at this place of its topic.
    """
    sent = Sent.of(one)
    name = verdict_id or f"id-{one.position}"
    data: dict[str, Any] = {"error": {"code": "EVENT_INVALID"}}
    if sent.event_id is not None:
        data = {
            "verdict_id": name,
            "input": {"event_id": sent.event_id},
            "image": {"sha256": sent.sha256},
            "outcome": {"status": "decided", "label": "real"},
            "error": None,
        }
        if sent.end == "damaged":
            data |= {"outcome": {"status": "failed"}, "error": {"code": "FORMAT_UNSUPPORTED"}}
    topic = "verdicts" if sent.event_id is not None else "letters"
    headers = (("ce_id", name.encode()),)
    return Outcome(topic, (0, place), one.event.key, headers, b"", data, one.position)


def all_answered(sent: Sequence[Published]) -> list[Outcome]:
    """
    Each once, in order.
    """
    return [answered(one, place) for place, one in enumerate(sent)]


def test_a_whole_campaign_is_found_whole() -> None:
    """
    Verdicts for what can be read, letters for what cannot, in order: nothing is found.
    """
    sent = published()
    found = compare(sent, all_answered(sent))

    assert (COUNT, (), 0, ()) == (found.terminal, found.lost, found.duplicates, found.wrong)
    assert {Sent.of(one).end for one in sent} == {"judged", "damaged", "unreadable"}


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, COUNT - 1)), st.lists(st.integers(0, COUNT - 1), max_size=8))
def test_every_gap_and_every_repeat_is_counted(missing: set[int], repeated: list[int]) -> None:
    """
    What has no outcome is lost, what has several is counted beyond the first, and nothing else is said of it.
    """
    sent = published()
    outcomes = [outcome for number, outcome in enumerate(all_answered(sent)) if number not in missing]
    again = [answered(sent[number], COUNT + at) for at, number in enumerate(repeated) if number not in missing]
    found = compare(sent, [*outcomes, *again])

    assert found.lost == tuple((0, number) for number in sorted(missing))
    assert found.terminal == COUNT - len(missing)
    assert found.duplicates == len(again)
    assert found.wrong == ()


def test_a_letter_beside_a_verdict_ends_nothing() -> None:
    """
    A readable upload that has only a letter is lost; one that has both was answered once, and should not have both.
    """
    sent = published(2)
    letter = replace(answered(sent[0], 0), topic="letters", data={"error": {"code": "INTERNAL"}})
    found = compare(sent, [letter, answered(sent[1], 0), replace(letter, answers=(0, 1))])

    assert found.lost == ((0, 0),)
    assert (1, 0) == (found.terminal, found.duplicates)
    assert found.wrong == tuple(f"(0, {at}), which can be read, has a dead letter: INTERNAL" for at in range(2))


def changed(outcome: Outcome, /, **parts: object) -> Outcome:
    """
    The outcome with other contents.
    """
    return replace(outcome, data={**outcome.data, **parts})


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("event", "sent event"),
        ("bytes", "sent bytes"),
        ("key", "sent under key"),
        ("nobody", "where nothing was sent"),
        ("two ids", "under 2 ids"),
        ("one id", "has the id of"),
        ("judged anew", "judged differently"),
        ("order", "out of order"),
        ("unreadable", "has a verdict"),
    ],
)
def test_what_must_not_be_is_told(what: str, expected: str) -> None:
    """
    Each contradiction between an upload and its outcome is said in words.
    """
    sent = published()
    outcomes = all_answered(sent)
    first, unreadable = outcomes[0], next(one for one in sent if Sent.of(one).event_id is None)
    same_key = next(number for number in range(1, COUNT) if sent[number].event.key == sent[0].event.key)
    wrong: dict[str, list[Outcome]] = {
        "event": [changed(first, input={"event_id": "another"}), *outcomes[1:]],
        "bytes": [changed(first, image={"sha256": "0" * 64}), *outcomes[1:]],
        "key": [replace(first, key=b"another"), *outcomes[1:]],
        "nobody": [*outcomes, replace(first, answers=(7, 7))],
        "two ids": [*outcomes, answered(sent[0], COUNT, verdict_id="another")],
        "one id": [answered(sent[0], 0, verdict_id="id-(0, 1)"), *outcomes[1:]],
        "judged anew": [*outcomes, changed(answered(sent[0], COUNT), outcome={"status": "abstained"})],
        "order": [
            replace(first, place=(0, same_key)),
            *outcomes[1:same_key],
            replace(outcomes[same_key], place=(0, 0)),
        ],
        "unreadable": [*outcomes, changed(answered(unreadable, COUNT), verdict_id="v")],
    }
    found = compare(sent, wrong[what])

    assert any(expected in one for one in found.wrong), found.wrong


PICTURE, DAMAGED, UNREADABLE = 0, DAMAGED_EVERY - 1, UNREADABLE_EVERY - 1

FAILED = {"outcome": {"status": "failed"}, "image": None}


@pytest.mark.parametrize(
    ("number", "told", "expected"),
    [
        (PICTURE, {**FAILED, "error": {"code": "INTERNAL"}}, "a picture was failed, INTERNAL"),
        (PICTURE, {**FAILED, "error": {"code": "FORMAT_UNSUPPORTED"}}, "a picture was failed, FORMAT_UNSUPPORTED"),
        (PICTURE, {"image": None}, "a picture was decided without facts of its image"),
        (PICTURE, {"outcome": {"status": "abstained"}, "image": {}}, "a picture was abstained without facts"),
        (DAMAGED, {"outcome": {"status": "decided"}, "error": None}, "a damaged file was decided, None"),
        (DAMAGED, {"error": {"code": "DECODE_CRASHED"}}, "a damaged file was failed, DECODE_CRASHED"),
        (UNREADABLE, {"error": {"code": "INTERNAL"}}, "an unreadable record ended with INTERNAL"),
    ],
)
def test_a_wrong_end_is_told(number: int, told: dict[str, Any], expected: str) -> None:
    """
    An outcome that is not the upload's right end fails the campaign, though nothing is lost.
    """
    sent = published()
    outcomes = all_answered(sent)
    outcomes[number] = changed(outcomes[number], **told)
    found = compare(sent, outcomes)

    assert found.terminal == COUNT
    assert len(found.wrong) == 1
    assert expected in found.wrong[0]


def test_a_picture_that_is_abstained_ended_well() -> None:
    """
    The model looked and could not tell: that is a judgement too.
    """
    sent = published()
    outcomes = [
        changed(one, outcome={"status": "abstained"}) if at == PICTURE else one
        for at, one in enumerate(all_answered(sent))
    ]

    assert () == compare(sent, outcomes).wrong


def test_a_worker_that_only_fails_does_not_pass() -> None:
    """
    Every picture answered, each once, in order, and none judged: nothing is lost, and the campaign is not good.
    """
    sent = published()
    outcomes = [
        changed(one, **FAILED, error={"code": "INTERNAL"}) if "verdict_id" in one.data else one
        for one in all_answered(sent)
    ]
    found = compare(sent, outcomes)

    assert () == found.lost
    assert found.wrong


def test_an_event_that_is_sent_is_read_from_its_record() -> None:
    """
    Id and bytes come from the record itself; what is no JSON has neither.
    """
    readable = Sent.of(Published(an_upload(0), (0, 0)))

    assert readable.event_id is not None
    assert readable.sha256 is not None
    assert Sent.of(Published(Event(b"k", b"noise"), (0, 1))).event_id is None


def cells(line: str) -> list[str]:
    """
    The words of a row.
    """
    return [word.strip() for word in line.split("|")[1:-1]]


def test_the_table_adds_up_and_a_loss_fails_it() -> None:
    """
    Every row and their sum are shown; lost, early and wrong each make the soak fail, and JSON tells the same.
    """
    good = Tally("one", faults=2, rounds=1, sent=1200, terminal=1200, duplicates=3, crashes=1)
    bad = Tally("two", faults=1, rounds=1, sent=10, terminal=9, lost=1, wrong=("key b'k' was answered out of order",))
    table = as_table([good, bad]).splitlines()

    assert cells(table[2]) == ["one", "2", "1", "1,200", "1,200", "0", "0", "3", "1"]
    assert cells(table[4]) == ["all", "3", "2", "1,210", "1,209", "1", "0", "3", "1"]
    assert table[5] == "wrong, two: key b'k' was answered out of order"
    assert len({len(line) for line in table[:5]}) == 1
    assert good.good
    assert not any(one.good for one in (bad, Tally("x", early=1), Tally("x", wrong=("y",)), Tally.of([good, bad])))
    assert json.loads(as_json([good, bad]))["all"]["lost"] == 1


def test_the_environment_scales_a_soak() -> None:
    """
    Each number has a variable; what is no number is refused by name.
    """
    assert Scale.of({}) == Scale()
    assert Scale.of({"TOUCHSTONE_SOAK_KILLS": "7", "TOUCHSTONE_SOAK_WAVE": "60"}) == Scale(kills=7, wave=60)
    assert Scale().kills >= 50 > SHORT.kills
    with pytest.raises(ValueError, match=r"TOUCHSTONE_SOAK_KILLS is 'many', expected a whole number"):
        Scale.of({"TOUCHSTONE_SOAK_KILLS": "many"})
