"""
What people said of verdicts, gathered for review, and files that ``touchstone bank add`` accepts.
"""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest
from pydantic import JsonValue

from schemas import verdict
from schemas.feedback import TYPE
from tests.bank_builders import a_picture
from tests.conftest import ROOT
from worker.bank.manifest import GENERATED
from worker.bank.sources import list_source
from worker.domain import Partition, RawEvent
from worker.errors import BankInvalid, CannotStart
from worker.operation.review_file import pictures_in, write_review
from worker.operation.reviewing import FeedbackFound, Judged, Reviewed, Word, judged_among, review

AT = Partition("feedback", 3)
LABELS = GENERATED.labels
SHA256 = "ab" * 32


def an_id(number: int) -> UUID:
    """
    The id of some verdict.
    """
    return uuid5(UUID(int=0), str(number))


def a_word(number: int, label: str, **fields: Any) -> Word:  # noqa: ANN401 - fields of a word
    """
    What a moderator says of a verdict.
    """
    return Word(an_id(number), **{"label": label, "role": "moderator", "generator": None, "note": None, **fields})


def about(number: int, sha256: str | None = None) -> dict[UUID, Judged]:
    """
    What verdict ``number`` was about.
    """
    return {an_id(number): Judged("acme", f"post-{number}", sha256 or f"{number:064x}", "real")}


def states(words: Sequence[Word], judged: Mapping[UUID, Judged], paths: Mapping[str, str] | None = None) -> list[str]:
    """
    What stands in the way of each image.
    """
    return [row.state for row in review(words, judged, LABELS, paths=paths)]


@pytest.mark.parametrize(
    ("labels", "state"),
    [
        (["real"], "agreed"),
        (["real", "real", "unsure"], "agreed"),
        (["real", "ai_generated"], "conflict"),
        (["real", "real", "real", "ai_generated"], "conflict"),
        (["unsure"], "unsure"),
        (["cartoon"], "unknown_label"),
    ],
)
def test_people_agree_or_somebody_decides(labels: list[str], state: str) -> None:
    """
    One word against many is a conflict, whoever says it; who cannot tell agrees with nobody and is no conflict.
    """
    words = [a_word(1, label, role=role) for label, role in zip(labels, ["uploader", *["expert"] * 3], strict=False)]
    (row,) = review(words, about(1), LABELS, paths=None)

    assert state == row.state
    assert (labels[0] if state == "agreed" else None) == row.label
    assert len(labels) == sum(row.labels.values()) == sum(row.roles.values())


def test_words_on_the_same_bytes_are_taken_together() -> None:
    """
    Two verdicts on the same bytes are one image, and people who speak of either can disagree.
    """
    judged = about(1, SHA256) | about(2, SHA256) | about(3)
    rows = review([a_word(1, "real"), a_word(3, "real"), a_word(2, "ai_generated")], judged, LABELS, paths=None)

    assert ["conflict", "agreed"] == [row.state for row in rows]
    assert [2, 1] == [len(row.words) for row in rows]


def test_generators_that_differ_are_none() -> None:
    """
    The label stands when people agree on it, and the generator only when they agree on that too.
    """
    one = [a_word(1, "ai_generated", generator=name) for name in ("flux", None, "flux")]
    two = [a_word(2, "ai_generated", generator=name) for name in ("flux", "midjourney")]
    rows = review([*one, *two], about(1) | about(2), LABELS, paths=None)

    assert [("ai_generated", "flux"), ("ai_generated", None)] == [(row.label, row.generator) for row in rows]


def test_what_cannot_be_added_says_why() -> None:
    """
    A verdict that is gone, one without bytes, and bytes that are in no folder are each named as such.
    """
    judged = {**about(1), an_id(2): Judged(None, "post-2", None, None), **about(3)}
    words = [a_word(number, "real") for number in (1, 2, 3, 4)]

    assert ["agreed", "no_bytes", "agreed", "no_verdict"] == states(words, judged)
    assert ["agreed", "no_bytes", "no_picture", "no_verdict"] == states(words, judged, {f"{1:064x}": "cat.png"})


def a_record(body: object, offset: int = 0, event_id: str | None = None) -> RawEvent:
    """
    A record of the feedback topic; without an id, without an envelope.
    """
    attributes = {"specversion": "1.0", "id": event_id or "", "source": "urn:platform", "type": TYPE}
    headers = tuple((f"ce_{name}", value.encode()) for name, value in attributes.items()) if event_id else ()
    return RawEvent(AT, offset, key=None, value=json.dumps(body).encode(), headers=headers)


BODY: dict[str, JsonValue] = {"verdict_id": str(an_id(1)), "label": "real", "reviewer_role": "expert", "note": "a cat"}


def test_feedback_is_taken_once_and_what_is_none_is_listed() -> None:
    """
    The same event delivered twice is one word, two events are two; an unreadable record says where it lay and why.
    """
    found = FeedbackFound()
    for record in (
        a_record(BODY, 0, "one"),
        a_record(BODY, 1, "one"),
        a_record(BODY, 2, "two"),
        a_record(BODY, 3),
        a_record(BODY | {"label": ""}, 4),
        a_record(BODY | {"verdict_id": "none"}, 5, "three"),
        a_record(BODY | {"reviewer_role": "a newer role"}, 6),
        a_record(BODY | {"reviewer_role": "newer_role"}, 7),
    ):
        found.take(record)

    assert ["expert"] * 3 + ["newer_role"] == [word.role for word in found.words]
    assert 1 == found.repeated
    assert [(3, 4), (3, 5), (3, 6)] == [(one.partition, one.offset) for one in found.unreadable]
    assert ["label", "verdict_id", "reviewer_role"] == [
        next(name for name in ("label", "verdict_id", "reviewer_role") if name in one.why) for one in found.unreadable
    ]


def a_verdict() -> dict[str, Any]:
    """
    A verdict as it lies in the topic.
    """
    return dict(json.loads((ROOT / "schemas" / "examples" / "imageVerdict.decided.json").read_text())["payload"])


def test_verdicts_are_found_by_envelope_or_by_reading() -> None:
    """
    Wanted verdicts are found with or without an envelope; what is none, or says it is another, is passed over unread.
    """
    body = a_verdict()
    wanted = UUID(body["verdict_id"])
    value = json.dumps(body).encode()

    def record(value: bytes | None, verdict_id: UUID | None = None) -> RawEvent:
        named = (("ce_type", verdict.TYPE.encode()), ("ce_id", str(verdict_id).encode()))
        return RawEvent(AT, 0, key=None, value=value, headers=() if verdict_id is None else named)

    records = [
        record(value),
        record(value, wanted),
        record(value, an_id(9)),
        record(b"{}", wanted),
        record(None, wanted),
    ]
    found = list(judged_among(records, frozenset([wanted])))

    assert [wanted, wanted] == [verdict_id for verdict_id, _ in found]
    assert (body["content_id"], body["image"]["sha256"]) == (found[0][1].content_id, found[0][1].sha256)
    assert [] == list(judged_among(records, frozenset([an_id(1)])))


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, str]:
    """
    Three pictures in a folder, by hash.
    """
    folder = tmp_path / "pictures" / "deep"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.png").write_bytes(a_picture(number))
    (folder / "copy.png").write_bytes(a_picture(0))
    (folder / "notes.txt").write_text("none")
    return {hashlib.sha256(a_picture(number)).hexdigest(): f"{number}.png" for number in range(3)}


def written(file: Path) -> list[dict[str, str]]:
    """
    The rows of a review.
    """
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_agreed_rows_are_what_bank_add_reads(tmp_path: Path, pictures: dict[str, str]) -> None:
    """
    With pictures found by hash the file is read as it is: path, label, generator, source, licence and the claimed hash.
    """
    first, second, _ = pictures
    judged = about(1, first) | about(2, second)
    words = [a_word(1, "real"), a_word(2, "ai_generated", generator="flux-9")]
    paths = pictures_in(tmp_path / "pictures", frozenset([first, second, SHA256]))
    write_review(
        tmp_path / "review.csv", review(words, judged, LABELS, paths=paths), source="feedback", licence="consent"
    )
    references = list_source(tmp_path / "review.csv", GENERATED).references
    told = [(one.label, one.generator, one.source, one.licence, one.sha256) for one in references]

    assert {first, second} == paths.keys()
    assert [hashlib.sha256(one.path.read_bytes()).hexdigest() for one in references] == [first, second]
    assert told == [
        ("real", None, "feedback", "consent", first),
        ("ai_generated", "flux-9", "feedback", "consent", second),
    ]
    assert all(not row["path"].startswith("/") for row in written(tmp_path / "review.csv"))


def test_rows_without_a_picture_wait_for_a_reviewer(tmp_path: Path) -> None:
    """
    Without --images the path is left empty, and bank add refuses the file until somebody has filled it in.
    """
    write_review(
        tmp_path / "review.csv", review([a_word(1, "real")], about(1), LABELS, paths=None), source="x", licence=""
    )

    with pytest.raises(BankInvalid, match="1 rows without a path"):
        list_source(tmp_path / "review.csv", GENERATED)


def test_what_is_not_agreed_has_no_label(tmp_path: Path) -> None:
    """
    A row of conflict shows who said what, has no label of its own, and is refused by bank add.
    """
    words = [a_word(1, "real", role="expert", note="fur"), a_word(1, "ai_generated", role="uploader")]
    write_review(tmp_path / "open.csv", review(words, about(1), LABELS, paths=None), source="x", licence="")
    (row,) = written(tmp_path / "open.csv")

    assert ("conflict", "", "ai_generated:1 real:1", "expert:1 uploader:1", "real", "fur") == tuple(
        row[name] for name in ("state", "label", "said", "roles", "decision", "notes")
    )
    with pytest.raises(BankInvalid, match="labels"):
        list_source(tmp_path / "open.csv", GENERATED)


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\tx"])
def test_a_review_runs_nothing_in_a_spreadsheet(tmp_path: Path, text: str) -> None:
    """
    What a stranger wrote into a content id or a note begins with an apostrophe where it would be a formula.
    """
    judged = {an_id(1): Judged(None, text, SHA256, None)}
    rows: list[Reviewed] = review([a_word(1, "real", note=text)], judged, LABELS, paths=None)
    write_review(tmp_path / "review.csv", rows, source="x", licence="")
    (row,) = written(tmp_path / "review.csv")

    assert [f"'{text}"] * 2 == [row["content_id"], row["notes"]]


def test_a_review_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """
    A folder that is not there is named, with what to do.
    """
    with pytest.raises(CannotStart, match="--out"):
        write_review(tmp_path / "none" / "review.csv", [], source="x", licence="")
