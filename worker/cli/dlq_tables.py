"""
How dead letters look on a terminal: a table of many, one in full, and what came of a redrive.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.operation.dead_letters import LEAST_ID_CHARS, LetterRow, LettersFound
from worker.operation.redriving import Redrive
from worker.redaction import one_line

MOST_NAMED: Final = 20
"""Refused records that are named; the JSON names them all."""


def show_list(found: LettersFound) -> None:
    """
    The rows, then how many there are of each code in all.
    """
    rows = found.rows
    if rows:
        Console().print(_table(rows))
    if len(rows) < found.letters:
        print(f"These are the newest {len(rows)} of {found.letters}; --limit shows more.")
    counts = ", ".join(f"{code} {count}" for code, count in found.by_code().items())
    print(f"{found.letters} dead letters: {counts}." if found.letters else "No dead letters.")
    for one in found.unreadable_named[:MOST_NAMED]:
        print(f"no dead letter: {one_line(one)}")
    if found.unreadable > MOST_NAMED:
        print(f"no dead letter: {found.unreadable - MOST_NAMED} more; --json names the first thousand")


def _table(rows: Sequence[LetterRow]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("id", no_wrap=True)
    for title in ("when", "code", "class", "stage", "lay at", "event", "bytes"):
        table.add_column(title, overflow="fold")
    for row in rows:
        size = "-" if row.size_bytes is None else f"{row.size_bytes:,}{' (cut short)' if row.truncated else ''}"
        table.add_row(
            str(row.id)[:LEAST_ID_CHARS],
            row.failed_at.strftime("%Y-%m-%d %H:%M:%S"),
            row.code.value,
            row.error_class.value,
            row.stage.value,
            Text(row.place),
            Text(one_line(row.event_id or "-")),
            size,
        )
    return table


def show_letter(document: Mapping[str, Any]) -> None:
    """
    One letter: a line for each thing that it says, then headers and value.
    """
    shown = dict(document)
    value, headers = shown.pop("value"), shown.pop("headers")
    shown["letter"] = "partition {partition}, offset {offset}".format(**shown["letter"])
    for name, told in shown.items():
        print(f"{name.replace('_', ' '):<14} {'-' if told is None else one_line(str(told))}")
    print("headers")
    for name, told in headers:
        print(f"  {name}: {'(null)' if told is None else told}")
    print("value")
    # With escapes for all that is not ASCII: nothing in it can steer a terminal.
    print(value if isinstance(value, str) else json.dumps(value, indent=2))


def show_redrive(plan: Redrive, *, dry_run: bool) -> None:
    """
    What was sent, what was left out and what was refused.
    """
    where = ", ".join(plan.targets) or "no topic"
    if dry_run:
        print(f"{len(plan.chosen)} records would be sent to {where}. Nothing was sent.")
    else:
        print(f"{plan.sent} of {len(plan.chosen)} records were sent to {where}.")
    if plan.policy:
        print(f"{plan.policy} of class policy were left out: give --include-policy, or their --code.")
    if plan.repeated:
        print(f"{plan.repeated} older letters of the same records were passed over.")
    if plan.unreadable:
        print(f"{plan.unreadable} records of the topic are no dead letters; `touchstone dlq list` names them.")
    for row, why in plan.refused[:MOST_NAMED]:
        print(f"refused: {str(row.id)[:LEAST_ID_CHARS]} ({row.place}): {one_line(why)}")
    if len(plan.refused) > MOST_NAMED:
        print(f"refused: {len(plan.refused) - MOST_NAMED} more; --json names them all")
