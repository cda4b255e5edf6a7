"""
Dead letters as an operator sees them: which are meant, where they would be sent, and that nothing shown does harm.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ErrorClass, ErrorCode, Stage, class_of, stage_of
from schemas.identity import bare_event_id
from tests.builders import a_raw_event
from worker.domain import Partition, RawEvent
from worker.errors import ConfigInvalid, EventUnreadable
from worker.operation import redriving
from worker.operation.dead_letters import MOST_NAMED, Filters, LetterRow, LettersFound, letter_as_json, row_of
from worker.operation.redriving import RedriveOrder, target_of
from worker.settings.tree import Settings
from worker.stages.intake import dead_letter_of

ROW = LetterRow(
    id=UUID("0123abcd-0000-5000-8000-000000000001"),
    partition=0,
    offset=3,
    failed_at=datetime(2026, 11, 22, 10, tzinfo=UTC),
    code=ErrorCode.FETCH_UPSTREAM,
    error_class=ErrorClass.TRANSIENT,
    stage=Stage.FETCH,
    origin=Partition("uploads", 1),
    origin_offset=7,
    event_id="e-1",
    content_id="c-1",
    size_bytes=10,
    truncated=False,
)
AT_MS = round(ROW.failed_at.timestamp() * 1000)


@pytest.mark.parametrize(
    ("filters", "taken"),
    [
        (Filters(), True),
        (Filters(codes=frozenset({ErrorCode.FETCH_UPSTREAM, ErrorCode.INTERNAL})), True),
        (Filters(codes=frozenset({ErrorCode.INTERNAL})), False),
        (Filters(error_class=ErrorClass.TRANSIENT), True),
        (Filters(error_class=ErrorClass.POLICY), False),
        (Filters(since_ms=AT_MS, until_ms=AT_MS + 1), True),
        (Filters(since_ms=AT_MS + 1), False),
        (Filters(until_ms=AT_MS), False),
        (Filters(ids=("ffffffff", "0123abcd")), True),
        (Filters(ids=("0123abcd-0000-5000-8000-000000000002",)), False),
    ],
)
def test_a_letter_is_meant_when_all_filters_mean_it(filters: Filters, taken: bool) -> None:
    """
    Empty means all; the first moment belongs to a time, the last does not.
    """
    assert filters.take(ROW) is taken


def letters_at(*failed_at_s: float) -> list[RawEvent]:
    """
    Records of the dead-letter topic, of unreadable events that failed then.
    """
    fault = EventUnreadable(ErrorCode.EVENT_INVALID, "no JSON")
    letters = [
        dead_letter_of(replace(a_raw_event(), offset=at), fault, worker_version="1", now_s=now_s, keep_bytes=100)
        for at, now_s in enumerate(failed_at_s)
    ]
    return [a_raw_event(letter.dead_letter.model_dump_json(by_alias=True).encode()) for letter in letters]


def test_only_the_newest_are_kept() -> None:
    """
    However many letters there are, and however many records that are none: the rest are counted, by code.
    """
    found = LettersFound(keep=3)
    letters = letters_at(50.0, 10.0, 40.0, 40.0, 20.0, 60.0)
    found.gather([*letters, *[a_raw_event(b"noise")] * (MOST_NAMED + 5)], Filters())

    assert [3, 0, 5] == [row.origin_offset for row in found.rows]
    assert (6, {"EVENT_INVALID": 6}) == (found.letters, found.by_code())
    assert (MOST_NAMED + 5, MOST_NAMED) == (found.unreadable, len(found.unreadable_named))


def test_more_than_memory_holds_are_not_redriven(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nothing is sent then; the message says how many there are and what narrows them.
    """
    monkeypatch.setattr(redriving, "letters_of", lambda *_: letters_at(1.0, 2.0, 3.0))
    monkeypatch.setattr(redriving, "LettersFound", partial(LettersFound, keep=2))

    with pytest.raises(ConfigInvalid, match="3 letters are meant, at most 2 are redriven at once; narrow them"):
        redriving.plan_redrive(Settings(), RedriveOrder(Filters()), lambda *_: None)


def test_an_id_names_one_record() -> None:
    """
    One that names none or several is refused, and so is what is no id; several letters of one record are one.
    """
    filters = Filters(ids=("0123abcd",))
    other = replace(ROW, id=UUID("0123abcd-0000-5000-8000-000000000002"))
    filters.require_one_each([ROW, replace(ROW, offset=9)])

    with pytest.raises(ConfigInvalid, match="no letter"):
        filters.require_one_each([])
    with pytest.raises(ConfigInvalid, match="2 letters"):
        filters.require_one_each([ROW, other])
    for text in ("0123abc", "uploads-1-7", ""):
        with pytest.raises(ConfigInvalid, match="no id"):
            Filters(ids=(text,))


def test_an_event_without_an_envelope_is_bare() -> None:
    """
    Also when its id was made of where it lay; an id of its own is one that it keeps elsewhere.
    """
    made = str(bare_event_id("uploads", 1, 7))

    assert not ROW.bare
    assert replace(ROW, event_id=None).bare
    assert replace(ROW, event_id=made).bare
    assert not replace(ROW, event_id=made, origin_offset=8).bare


def test_it_is_sent_to_the_first_retry_topic_unless_told_otherwise() -> None:
    """
    Where there is none, to where it lay.
    """
    with_retries = Settings()
    without = Settings.model_validate({"retry": {"delays_s": []}})

    assert target_of(with_retries, RedriveOrder(Filters()), ROW) == "image-uploads-retry-1"
    assert target_of(without, RedriveOrder(Filters()), ROW) == "uploads"
    assert target_of(with_retries, RedriveOrder(Filters(), to="elsewhere"), ROW) == "elsewhere"


@pytest.mark.parametrize("code", ErrorCode)
def test_the_row_says_what_the_letter_says(code: ErrorCode) -> None:
    """
    For every code: its class, where the record lay, and how large it is.
    """
    raw = a_raw_event(b"\xff" * 99, partition=Partition("uploads", 2), offset=5)
    letter = dead_letter_of(raw, EventUnreadable(code, "any"), worker_version="1", now_s=1.0).dead_letter
    row = row_of(replace(raw, partition=Partition("letters", 0), offset=8), letter)

    assert (row.code, row.error_class, row.place, row.size_bytes) == (code, class_of(code), "uploads-2-5", 99)
    assert (row.partition, row.offset) == (0, 8)
    assert stage_of(code) in Stage


SECRET = "X-Sig=5ec3e7"  # noqa: S105 - made up
ADDRESSES = (
    f"https://h.example/a?{SECRET}",
    f"https://h.example/a#{SECRET}",
    f"s3://user:{SECRET}@h/a",
)
# Hypothesis tries texts that it has seen elsewhere; the secret by itself is nobody's address.
TEXTS = st.text().filter(lambda text: "5ec3e7" not in text)
HOSTILE = st.one_of(
    TEXTS.map(str.encode),
    st.binary(max_size=200).filter(lambda data: b"5ec3e7" not in data),
    st.tuples(TEXTS, st.sampled_from(ADDRESSES)).map(lambda two: f"{two[0]} {two[1]}".encode()),
    st.sampled_from(ADDRESSES).map(lambda url: json.dumps({"image": {"ref": [url]}}).encode()),
    st.sampled_from(ADDRESSES).map(
        lambda url: json.dumps({"u": url}).replace("?", "\\u003f").replace("/", "\\/").encode()
    ),
)


@given(value=HOSTILE, name=TEXTS, header=HOSTILE, key=HOSTILE)
def test_what_is_shown_steers_no_terminal_and_tells_no_secret(
    value: bytes, name: str, header: bytes, key: bytes
) -> None:
    """
    Whatever a record holds: no control character, no query, no userinfo.
    """
    raw = a_raw_event(value, headers=((name, header), (name, None)), key=key)
    letter = dead_letter_of(raw, EventUnreadable(ErrorCode.EVENT_INVALID, "any"), worker_version="1", now_s=1.0)
    document = letter_as_json(row_of(raw, letter.dead_letter), letter.dead_letter)
    shown = json.dumps(document)
    as_text = [document["key"], *(part for pair in document["headers"] for part in pair)]

    assert SECRET not in shown
    for text in as_text:
        assert text is None or not any(ord(one) < 32 or 127 <= ord(one) < 160 for one in text.replace("\t", ""))
