"""
The versions behind two sides, field by field, and which of them differ.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from worker.diff.comparison import Comparison

Value = str | int | None

SHOWN_ELSEWHERE = frozenset({"policy.surface"})


@dataclass(frozen=True, slots=True)
class VersionRow:
    """
    One version field, with how many events of each side have which value.
    """

    name: str
    a: Mapping[Value, int]
    b: Mapping[Value, int]

    @property
    def differs(self) -> bool:
        """
        Whether the two sides were made with different values of it.
        """
        return set(self.a) != set(self.b)


def version_rows(found: Comparison) -> list[VersionRow]:
    """
    A row per version field, in the order of the contract; one that a side does not have is null there.
    """
    flat = [dict(_flat(json.loads(text))) for text in found.versions]
    names = dict.fromkeys(name for one in flat for name in one if name not in SHOWN_ELSEWHERE)
    rows = []
    for name in names:
        sides: list[dict[Value, int]] = []
        for side in (found.a, found.b):
            counted: dict[Value, int] = {}
            for number, events in side.versions.items():
                value = flat[number].get(name)
                counted[value] = counted.get(value, 0) + events
            sides.append(counted)
        rows.append(VersionRow(name, *sides))
    return rows


def _flat(tree: Mapping[str, object], above: str = "") -> Iterator[tuple[str, Value]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        elif value is None or isinstance(value, str | int):
            yield f"{above}{name}", value
