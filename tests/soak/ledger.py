"""
The checker: every upload that was sent, against every outcome that was published, and against the end it should have.

It knows nothing of how the outcomes came about; what is counted is shown by ``tally.py``. That no outcome is a wrong
one says something only because every upload has one end that is right: nothing that a campaign does may change it.
"""

import base64
import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, Self

from PIL import Image

from tests.outcome_reader import Outcome
from tests.platform_side import Position, Published

SHOWN = 5
"""Of one kind of finding, for there may be thousands."""

End = Literal["judged", "damaged", "unreadable"]

JUDGED: Final = ("decided", "abstained")
DAMAGED: Final = ("failed", "FORMAT_UNSUPPORTED")
UNREADABLE: Final = "EVENT_INVALID"
"""The code of a record that is no event; these campaigns send no empty ones and none of another type."""


@dataclass(frozen=True, slots=True)
class Sent:
    """
    An upload as its producer knows it, and its one right end.

    A picture is ``judged``; a ``damaged`` file fails as what it is; a record without ``event_id`` is ``unreadable``,
    and a dead letter is its only end.
    """

    position: Position
    key: bytes | None
    event_id: str | None
    sha256: str | None
    end: End

    @classmethod
    def of(cls, published: Published) -> Self:
        """
        From the record itself, not from how it was made.
        """
        event = published.event
        headers = {name: value.decode() for name, value in event.headers}
        try:
            ref = json.loads(event.value or b"")["image"]["ref"]
            image = base64.b64decode(ref["base64"]) if ref["kind"] == "inline" else None
        except (ValueError, KeyError, TypeError):
            return cls(published.position, event.key, None, None, "unreadable")
        if image is None:
            return cls(published.position, event.key, headers["ce_id"], None, "judged")
        end: End = "judged" if _is_picture(image) else "damaged"
        return cls(published.position, event.key, headers["ce_id"], hashlib.sha256(image).hexdigest(), end)


@dataclass(frozen=True, slots=True)
class Findings:
    """
    What the comparison showed: positions without an end, repeats, and in words what must not be.
    """

    terminal: int
    lost: tuple[Position, ...]
    duplicates: int
    wrong: tuple[str, ...]


def compare(published: Iterable[Published], outcomes: Sequence[Outcome]) -> Findings:
    """
    Each upload against its outcomes, and each outcome against its upload; ``outcomes`` in the order of reading.
    """
    sent = {one.position: Sent.of(one) for one in published}
    ends: dict[Position, list[Outcome]] = defaultdict(list)
    wrong: list[str] = []
    for outcome in outcomes:
        if (one := sent.get(outcome.answers)) is None:
            wrong.append(f"an outcome answers {outcome.answers}, where nothing was sent")
        elif _is_end(one, outcome):
            ends[one.position].append(outcome)
            wrong += _contradictions(one, outcome)
        elif one.event_id is None:
            wrong.append(f"the unreadable record at {one.position} has a verdict")
        else:
            wrong.append(f"{one.position}, which can be read, has a dead letter: {_code(outcome.data)}")
    wrong += _ids(ends)
    wrong += _disorder(sent, ends)
    return Findings(
        terminal=len(ends),
        lost=tuple(sorted(sent.keys() - ends.keys())),
        duplicates=sum(len(found) - 1 for found in ends.values()),
        wrong=_shortened(wrong),
    )


def _is_end(sent: Sent, outcome: Outcome) -> bool:
    """
    Whether it ends the upload: a verdict, or the dead letter of what cannot be read; no letter beside a verdict is one.
    """
    return ("verdict_id" in outcome.data) == (sent.event_id is not None)


def wrong_end(end: End, data: Mapping[str, Any]) -> str:
    """
    What an outcome says instead of what it should say; empty where it is the right one.
    """
    if end == "unreadable":
        return "" if _code(data) == UNREADABLE else f"an unreadable record ended with {_code(data)}"
    status, image = data["outcome"]["status"], data.get("image")
    if end == "damaged":
        return "" if (status, _code(data)) == DAMAGED else f"a damaged file was {status}, {_code(data)}"
    if status not in JUDGED:
        return f"a picture was {status}, {_code(data)}"
    return "" if image and image.get("sha256") else f"a picture was {status} without facts of its image"


def _code(data: Mapping[str, Any]) -> str:
    return str((data.get("error") or {}).get("code"))


@lru_cache(maxsize=1024)
def _is_picture(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
    except OSError:
        return False
    return True


def _contradictions(sent: Sent, outcome: Outcome) -> Iterable[str]:
    if wrong := wrong_end(sent.end, outcome.data):
        yield f"{sent.position}: {wrong}"
    if outcome.key != sent.key:
        yield f"{sent.position}: sent under key {sent.key!r}, answered under {outcome.key!r}"
    if sent.event_id is None:
        return
    data = outcome.data
    if data["input"]["event_id"] != sent.event_id:
        yield f"{sent.position}: sent event {sent.event_id}, answered {data['input']['event_id']}"
    told = (data.get("image") or {}).get("sha256")
    if sent.sha256 is not None and told is not None and told != sent.sha256:
        yield f"{sent.position}: sent bytes {sent.sha256}, judged {told}"


def _ids(ends: Mapping[Position, Sequence[Outcome]]) -> Iterable[str]:
    """
    Repeats have one id and say the same; no two uploads have the same id.
    """
    owner: dict[str, Position] = {}
    for position, outcomes in ends.items():
        ids = {dict(outcome.headers)["ce_id"].decode() for outcome in outcomes}
        if len(ids) > 1:
            yield f"{position} was answered under {len(ids)} ids"
        if len({_judgement(outcome.data) for outcome in outcomes}) > 1:
            yield f"{position} was judged differently when it was judged again"
        for one in ids:
            if owner.setdefault(one, position) != position:
                yield f"{position} has the id of {owner[one]}"


def _judgement(data: Mapping[str, Any]) -> str:
    if "verdict_id" not in data:
        return str(data["error"]["code"])
    return str([data["outcome"].get(name) for name in ("status", "label", "decision", "action")])


def _disorder(sent: Mapping[Position, Sent], ends: Mapping[Position, Sequence[Outcome]]) -> Iterable[str]:
    """
    The first verdicts of a key stand in the order of its uploads, in the topic where they were read.
    """
    of_key: dict[tuple[bytes | None, str], list[tuple[Position, Position]]] = defaultdict(list)
    for position, outcomes in ends.items():
        first = min(outcomes, key=lambda outcome: outcome.place)
        of_key[sent[position].key, first.topic].append((first.place, position))
    for (key, _), answers in of_key.items():
        positions = [position for _, position in sorted(answers)]
        if positions != sorted(positions):
            yield f"key {key!r} was answered out of order"


def _shortened(wrong: Sequence[str]) -> tuple[str, ...]:
    if len(wrong) <= SHOWN:
        return tuple(wrong)
    kinds = Counter(wrong)
    return (*list(kinds)[:SHOWN], f"and {len(wrong) - SHOWN} more")
