"""
What a comparison keeps of a verdict: the fields that are compared, and the few that name and explain a difference.

Which field is compared and which is not is decided in ``fields.py``; verdicts are joined in ``joining.py``.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final, Self

from schemas.verdict import UNCERTAIN, ImageVerdictV1

FAILED: Final = "failed"
"""What a failed verdict is said to decide, in transitions."""

NEIGHBOURS_KEPT: Final = 5

PATH_OF: Final[dict[str, str]] = {
    "status": "outcome.status",
    "label": "outcome.label",
    "decision": "outcome.decision",
    "action": "outcome.action",
    "score": "outcome.score",
    "probability": "outcome.probability",
    "margin": "outcome.margin",
    "p_value": "calibration.p_value",
    "reasons": "outcome.reasons.code",
    "generator": "attribution.generator",
    "missing_heads": "missing_heads",
    "error": "error.code",
}
"""Where each field of ``Compared`` stands in a verdict."""


@dataclass(frozen=True, slots=True)
class EventKey:
    """
    An upload event, as its producer names it.
    """

    source: str
    id: str


@dataclass(frozen=True, slots=True)
class Compared:
    """
    The fields whose difference counts; ``decision`` is a word for failed verdicts too.
    """

    status: str
    label: str | None
    decision: str
    action: str
    score: float | None
    probability: float | None
    margin: float | None
    p_value: float | None
    reasons: tuple[str, ...]
    generator: str | None
    missing_heads: tuple[str, ...]
    error: str | None

    def differences(self, other: Self, *, tolerance: float = 0.0) -> Iterator[str]:
        """
        The names of the fields that differ, numbers by more than ``tolerance``.
        """
        for name in _NAMES:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine == theirs:
                continue
            if isinstance(mine, float) and isinstance(theirs, float) and abs(shift(mine, theirs)) <= tolerance:
                continue
            yield name


@dataclass(frozen=True, slots=True)
class Near:
    """
    One of the nearest references, as the verdict named it.
    """

    entry_id: str
    label: str
    generator: str | None
    similarity: float
    weight: float


@dataclass(frozen=True, slots=True)
class Seen:
    """
    One side's verdict on an event.
    """

    compared: Compared
    content_id: str
    surface: str
    sha256: str | None
    neighbours: tuple[Near, ...]


_NAMES: Final = tuple(field.name for field in fields(Compared))
# Five times as fast as dataclasses.astuple, which copies what it meets.
_COMPARED: Final = attrgetter(*_NAMES)
_NEAR: Final = attrgetter(*(field.name for field in fields(Near)))


def key_of(verdict: ImageVerdictV1) -> EventKey:
    """
    The event that a verdict answers.
    """
    return EventKey(verdict.input.event_source, verdict.input.event_id)


def seen_of(verdict: ImageVerdictV1) -> Seen:
    """
    What is kept of a verdict.
    """
    outcome, evidence = verdict.outcome, verdict.evidence
    compared = Compared(
        status=outcome.status,
        label=outcome.label,
        decision=_decision(verdict),
        action=outcome.action.value,
        score=outcome.score,
        probability=outcome.probability,
        margin=outcome.margin,
        p_value=verdict.calibration.p_value if verdict.calibration else None,
        reasons=tuple(reason.code.value for reason in outcome.reasons),
        generator=verdict.attribution.generator if verdict.attribution else None,
        missing_heads=verdict.missing_heads,
        error=verdict.error.code.value if verdict.error else None,
    )
    near = evidence.neighbours[:NEIGHBOURS_KEPT] if evidence else ()
    return Seen(
        compared,
        content_id=verdict.content_id,
        surface=verdict.versions.policy.surface,
        sha256=verdict.image.sha256 if verdict.image else None,
        neighbours=tuple(Near(one.entry_id, one.label, one.generator, one.similarity, one.weight) for one in near),
    )


def packed(seen: Seen) -> str:
    """
    As text, so that a million of them need no memory.
    """
    near = [_NEAR(one) for one in seen.neighbours]
    row = (_COMPARED(seen.compared), seen.content_id, seen.surface, seen.sha256, near)
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


def unpacked(text: str) -> Seen:
    """
    The inverse of ``packed``.
    """
    row, content_id, surface, sha256, near = json.loads(text)
    values: list[Any] = [tuple(value) if isinstance(value, list) else value for value in row]
    return Seen(
        Compared(*values),
        content_id=content_id,
        surface=surface,
        sha256=sha256,
        neighbours=tuple(Near(*one) for one in near),
    )


def shift(before: float, after: float) -> float:
    """
    By how much a number grew, freed of the noise that a subtraction of rounded numbers leaves.
    """
    return round(after - before, 9)


def generator_of(a: Seen, b: Seen) -> str | None:
    """
    The generator that a pair is counted under: attributed by B, else by A, else that of B's nearest, else of A's.
    """
    return (
        b.compared.generator
        or a.compared.generator
        or next((near.generator for seen in (b, a) for near in seen.neighbours[:1] if near.generator), None)
    )


def _decision(verdict: ImageVerdictV1) -> str:
    # Verdicts of 1.0 have no decision, so it is said again from what they have.
    outcome = verdict.outcome
    if outcome.status == "failed":
        return FAILED
    return outcome.label if outcome.label is not None else UNCERTAIN
