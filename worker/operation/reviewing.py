"""
What people said of verdicts, gathered image by image, for somebody to review. Nothing here changes a bank.

Reading the topics is the adapters' business, and writing the review the command's (``worker.cli.feedback``).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal
from uuid import UUID

from pydantic import ValidationError

from schemas import feedback, verdict
from schemas.envelope import EnvelopeInvalid, index_headers
from schemas.feedback import ImageFeedbackV1
from schemas.verdict import ImageVerdictV1
from worker.domain import RawEvent
from worker.errors import EventUnreadable
from worker.operation.envelopes import read_enveloped

UNSURE: Final = "unsure"
"""What a person says who looked and could not tell; it agrees and disagrees with nobody."""

State = Literal["agreed", "conflict", "unsure", "unknown_label", "no_verdict", "no_bytes", "no_picture"]
"""What stands in the way of adding an image to a bank; nothing does where all ``agreed``."""


@dataclass(frozen=True, slots=True)
class Word:
    """
    One person's word on one verdict.
    """

    verdict_id: UUID
    label: str
    role: str
    generator: str | None
    note: str | None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """
    A record of the feedback topic that is no feedback, and why.
    """

    partition: int
    offset: int
    why: str


@dataclass(frozen=True, slots=True)
class Judged:
    """
    What the verdict that people speak of was about, and what it said.
    """

    tenant_id: str | None
    content_id: str
    sha256: str | None
    decision: str | None


@dataclass(frozen=True, slots=True)
class Reviewed:
    """
    All that was said of one image; ``label`` and ``generator`` are None where people disagree or do not say.
    """

    state: State
    words: tuple[Word, ...]
    judged: Judged | None
    label: str | None = None
    generator: str | None = None
    path: str | None = None

    @property
    def labels(self) -> Mapping[str, int]:
        """
        How many people said what.
        """
        return Counter(word.label for word in self.words)

    @property
    def roles(self) -> Mapping[str, int]:
        """
        Who they were; a role weighs nothing by itself.
        """
        return Counter(word.role for word in self.words)


@dataclass(slots=True)
class FeedbackFound:
    """
    The feedback of a topic as it is read: each event once, however often it was delivered.
    """

    words: list[Word] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    repeated: int = 0
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def take(self, raw: RawEvent) -> None:
        """
        Add what a record says, or why it says nothing.
        """
        try:
            event = read_enveloped(raw, feedback.TYPE, ImageFeedbackV1)
        except EventUnreadable as unreadable:
            why = f"{unreadable.code}: {unreadable.detail}"
            self.unreadable.append(Unreadable(raw.partition.number, raw.offset, why))
            return
        identity = (event.attributes.source, event.attributes.id)
        if identity in self._seen:
            self.repeated += 1
            return
        self._seen.add(identity)
        said = event.data
        self.words.append(Word(said.verdict_id, said.label, said.reviewer_role, said.generator, said.note))


def judged_among(records: Iterable[RawEvent], wanted: frozenset[UUID]) -> Iterator[tuple[UUID, Judged]]:
    """
    Of records of the verdict topic those that are wanted; the id in the envelope spares parsing all others.

    A record that says by its envelope that it is wanted, and then is no verdict, is passed over like one of another.
    """
    for record in records:
        named = _named(record)
        if (named is not None and named not in wanted) or not record.value:
            continue
        try:
            found = ImageVerdictV1.model_validate_json(record.value, extra="ignore")
        except ValidationError:
            continue
        if found.verdict_id in wanted:
            sha256 = None if found.image is None else found.image.sha256
            yield found.verdict_id, Judged(found.tenant_id, found.content_id, sha256, found.outcome.decision)


def review(
    words: Sequence[Word], judged: Mapping[UUID, Judged], labels: Sequence[str], *, paths: Mapping[str, str] | None
) -> list[Reviewed]:
    """
    One row per image, in the order in which it was first spoken of; ``labels`` are those that a bank knows.

    What is said of the same bytes is taken together, whichever verdict it was said of. ``paths`` tells where the bytes
    of a hash lie; None where nobody looked.
    """
    groups: dict[str, list[Word]] = {}
    for word in words:
        about = judged.get(word.verdict_id)
        groups.setdefault((about and about.sha256) or str(word.verdict_id), []).append(word)
    return [_reviewed(tuple(group), judged, labels, paths) for group in groups.values()]


def _reviewed(
    words: tuple[Word, ...], judged: Mapping[UUID, Judged], labels: Sequence[str], paths: Mapping[str, str] | None
) -> Reviewed:
    about = next((judged[word.verdict_id] for word in words if word.verdict_id in judged), None)
    said = {word.label for word in words if word.label != UNSURE}
    row = Reviewed("agreed", words, about)
    if about is None:
        return replace(row, state="no_verdict")
    if about.sha256 is None:
        return replace(row, state="no_bytes")
    row = replace(row, path=None if paths is None else paths.get(about.sha256))
    if len(said) != 1:
        return replace(row, state="conflict" if said else "unsure")
    (label,) = said
    if label not in labels:
        return replace(row, state="unknown_label")
    generators = {word.generator for word in words if word.generator is not None and word.label == label}
    row = replace(row, label=label, generator=generators.pop() if len(generators) == 1 else None)
    return replace(row, state="no_picture") if paths is not None and row.path is None else row


def _named(record: RawEvent) -> UUID | None:
    """
    The id of the verdict in a record, by its envelope; None where that does not say.
    """
    try:
        index = index_headers(record.headers)
        if index.get("ce_type") != verdict.TYPE.encode():
            return None
        return UUID(index["ce_id"].decode())
    except (EnvelopeInvalid, KeyError, ValueError):
        return None
