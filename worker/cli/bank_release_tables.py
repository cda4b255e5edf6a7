"""
What ``touchstone bank releases`` and its neighbours show of a place of releases.

The commands are in ``bank_releases.py``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schemas.bank_control import BankControlV1


def show_releases(place: str, rows: list[dict[str, Any]], active: "BankControlV1 | None") -> None:
    """
    A table of the releases, who activated which, and what is disabled.
    """
    from rich import box  # noqa: PLC0415 - --help needs no table
    from rich.console import Console  # noqa: PLC0415 - likewise
    from rich.table import Table  # noqa: PLC0415 - likewise

    console = Console()
    table = Table(box=box.SIMPLE_HEAD, title=place, title_justify="left")
    for column in ("release", "active", "version", "references", "judgement", "canaries", "manifest"):
        table.add_column(column)
    for row in rows:
        manifest, judgement = row["manifest_sha256"] or row["problem"], row["judgement"]
        table.add_row(
            row["release"],
            "active" if row["active"] else "",
            row["version"] or "",
            "" if row["entries"] is None else str(row["entries"]),
            "no" if judgement is None else judgement[:12],
            "yes" if row["canaries"] else "no",
            manifest[:12] if row["problem"] is None else manifest,
        )
    console.print(table)
    if active is None:
        console.print("none is active", highlight=False)
        return
    told = f"active since {active.issued_at:%Y-%m-%d %H:%M:%S %Z}, by {active.issued_by or 'somebody'}"
    console.print(told if active.reason is None else f"{told}: {active.reason}", highlight=False, markup=False)
    for line in disabled_lines(active):
        console.print(line, highlight=False, markup=False)


def disabled_lines(control: "BankControlV1") -> list[str]:
    """
    What a record disables, a line for each kind of name.
    """
    disabled = {
        "entries": control.disabled_entries,
        "generators": control.disabled_generators,
        "sources": control.disabled_sources,
    }
    return [f"disabled {what}: {', '.join(names)}" for what, names in disabled.items() if names]
