"""
The JSON object of a comparison. Its keys are a promise; numbers that could not be had are null.

``flips`` counts events that both sides decide differently (failed is a decision here), ``differing`` those that differ
in any compared field, ``fields`` in which. ``listed`` names flips and events of one side only, the first
``MOST_FLIPPED`` of each in the order of their names. ``worst_movers`` are those whose score moved farthest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from worker.diff.comparison import Change, Comparison, Group, Side, arrow, ranked
from worker.diff.gates import GateResult
from worker.diff.seen import EventKey, Seen
from worker.diff.shifts import score_shift
from worker.diff.versions import version_rows

VERSION: Final = 1


def diff_object(found: Comparison, gates: Sequence[GateResult]) -> dict[str, Any]:
    """
    The comparison as one JSON document.
    """
    return {
        "version": VERSION,
        "a": _side(found.a),
        "b": _side(found.b),
        "compared": found.compared,
        "flips": found.flips,
        "only_in_a": found.a.alone,
        "only_in_b": found.b.alone,
        "differing": found.differing,
        "fields": dict(found.fields.most_common()),
        "transitions": _transitions(found.overall),
        "by_surface": _groups(found.by_surface),
        "by_generator": _groups(found.by_generator),
        "score_shift": asdict(score_shift(found)),
        "versions": [
            {"name": row.name, "differs": row.differs, "a": _valued(row.a), "b": _valued(row.b)}
            for row in version_rows(found)
        ],
        "worst_movers": [_change(change, neighbours=True) for change in found.movers],
        "listed": {
            "flipped": [_change(change, neighbours=False) for change in found.flipped],
            "only_in_a": [_alone(*one) for one in found.a.listed_alone],
            "only_in_b": [_alone(*one) for one in found.b.listed_alone],
        },
        "gates": [asdict(gate) for gate in gates],
        "passed": all(gate.passed for gate in gates),
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "name": side.name,
        "events": side.events,
        "duplicates": side.duplicates,
        "repeats": side.repeats,
        "decisions": dict(sorted(side.decisions.items())),
    }


def _transitions(group: Group) -> dict[str, int]:
    return {arrow(transition): count for transition, count in group.transitions.most_common()}


def _groups(groups: Mapping[str, Group]) -> dict[str, Any]:
    return {
        name: {"compared": group.compared, "flips": group.flips, "transitions": _transitions(group)}
        for name, group in ranked(groups)
    }


def _valued(counts: Mapping[Any, int]) -> list[dict[str, Any]]:
    return [{"value": value, "events": events} for value, events in counts.items()]


def _change(change: Change, *, neighbours: bool) -> dict[str, Any]:
    return {
        **_event(change.event, change.b),
        "surface": change.a.surface,
        "transition": arrow(change.flip) if change.flip else None,
        "score_shift": change.shift,
        "fields": list(change.fields),
        "a": _seen(change.a, neighbours=neighbours),
        "b": _seen(change.b, neighbours=neighbours),
    }


def _seen(seen: Seen, *, neighbours: bool) -> dict[str, Any]:
    whole = asdict(seen)
    return {**whole["compared"], **({"neighbours": whole["neighbours"]} if neighbours else {})}


def _alone(event: EventKey, seen: Seen) -> dict[str, Any]:
    return {**_event(event, seen), "surface": seen.surface, "decision": seen.compared.decision}


def _event(event: EventKey, seen: Seen) -> dict[str, Any]:
    return {
        "event_source": event.source,
        "event_id": event.id,
        "content_id": seen.content_id,
        "sha256": seen.sha256,
    }
