"""
What a campaign found, counted, and the one table of a whole soak.

What is lost, early or wrong is decided in ``ledger.py``; here it is only added up and shown.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Self

HEADINGS = (
    ("campaign", "Campaign"),
    ("faults", "Faults injected"),
    ("rounds", "Rounds"),
    ("sent", "Uploads sent"),
    ("terminal", "Terminal verdicts"),
    ("lost", "Lost"),
    ("early", "Early commits"),
    ("duplicates", "Duplicates by id"),
    ("crashes", "Crashes"),
)


@dataclass(frozen=True, slots=True)
class Tally:
    """
    One row: what was done to the workers, and what became of every upload.

    ``terminal`` counts uploads with their terminal outcome, once each; ``duplicates`` the outcomes beyond the first of
    an upload, all of the same id. ``early`` counts commits that were ahead of an outcome: under at_least_once all of
    them, by the brokers' clock; under exactly_once, and in the campaign on memory, those that a watch saw, which asks
    every 20 ms. ``crashes`` counts workers that ended by themselves with 4, as some faults may make them. ``wrong``
    says in words what else must not be, and fails the campaign as well: a crash under another fault, or an upload that
    did not end as it should.
    """

    campaign: str
    faults: int = 0
    rounds: int = 0
    sent: int = 0
    terminal: int = 0
    lost: int = 0
    early: int = 0
    duplicates: int = 0
    crashes: int = 0
    took_s: float = 0.0
    wrong: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """
        Nothing lost, nothing committed early, nothing wrong.
        """
        return not (self.lost or self.early or self.wrong)

    @classmethod
    def of(cls, rows: Iterable[Self]) -> Self:
        """
        The sum of these rows.
        """
        rows = list(rows)
        counts = {
            one.name: sum(getattr(row, one.name) for row in rows) for one in fields(cls) if one.type in {int, float}
        }
        return cls("all", **counts, wrong=tuple(found for row in rows for found in row.wrong))


def as_table(rows: Sequence[Tally]) -> str:
    """
    The table in Markdown, the sum last, and below it what was wrong.
    """
    names = [name for name, _ in HEADINGS]
    lines = [
        [title for _, title in HEADINGS],
        *([_shown(row, name) for name in names] for row in [*rows, Tally.of(rows)]),
    ]
    widths = [max(len(line[at]) for line in lines) for at in range(len(names))]
    padded = [
        "| " + " | ".join(word.ljust(width) if at == 0 else word.rjust(width) for at, (word, width) in cells) + " |"
        for line in lines
        for cells in [list(enumerate(zip(line, widths, strict=True)))]
    ]
    ruler = (
        "| " + " | ".join("-" * width if at == 0 else "-" * (width - 1) + ":" for at, width in enumerate(widths)) + " |"
    )
    said = [f"wrong, {row.campaign}: {found}" for row in rows for found in row.wrong]
    return "\n".join([padded[0], ruler, *padded[1:], *said])


def as_json(rows: Sequence[Tally]) -> str:
    """
    One object: every row, and their sum.
    """
    return json.dumps({"campaigns": [asdict(row) for row in rows], "all": asdict(Tally.of(rows))})


def _shown(row: Tally, name: str) -> str:
    value = getattr(row, name)
    return f"{value:,}" if isinstance(value, int) else str(value)
