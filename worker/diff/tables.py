"""
The comparison on a terminal: a heading and a table for each question that an operator asks.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from worker.diff.comparison import Change, Comparison, Group, Side, arrow, ranked
from worker.diff.gates import GateResult
from worker.diff.seen import Near
from worker.diff.shifts import score_shift
from worker.diff.versions import version_rows

MOST_ROWS: Final = 15
MOST_MOVERS: Final = 10
_SHORT: Final = 16


def diff_tables(found: Comparison, gates: Sequence[GateResult]) -> Iterator[RenderableType]:
    """
    Everything that the terminal shows, from top to bottom; the gates last, where they are seen.
    """
    yield _sides(found)
    yield plain(_heading(found))
    if found.flips:
        yield _transitions(found)
        yield _groups("surface", found.by_surface)
        yield _groups("generator", found.by_generator)
    yield plain(_shift_line(found))
    if found.movers:
        yield _movers(found.movers)
    yield from _versions(found)
    if gates:
        yield _gates(gates)


def plain(text: str, style: str = "") -> Text:
    """
    Text of verdicts for a terminal: no markup, no control codes.
    """
    return Text("".join(one if one.isprintable() else "\ufffd" for one in text), style)


def _heading(found: Comparison) -> str:
    fields = ", ".join(f"{name} {count}" for name, count in found.fields.most_common())
    return (
        f"{found.compared} events compared: {found.flips} flips, {found.differing} differ in any compared field"
        f"{f' ({fields})' if fields else ''}; {found.a.alone} only in A, {found.b.alone} only in B."
    )


def _sides(found: Comparison) -> Table:
    table = _table("", "verdicts of", "events", "further verdicts", "twice in a replay", "decisions")
    for word, side in (("A", found.a), ("B", found.b)):
        counts = (str(side.events), str(side.duplicates), str(side.repeats))
        table.add_row(word, plain(side.name), *counts, plain(_decisions(side)))
    return table


def _decisions(side: Side) -> str:
    return ", ".join(f"{name} {count}" for name, count in side.decisions.most_common())


def _transitions(found: Comparison) -> Table:
    table = _table("flips, from A to B", "events")
    for transition, count in found.overall.transitions.most_common():
        table.add_row(plain(arrow(transition)), str(count))
    return table


def _groups(of_what: str, groups: Mapping[str, Group]) -> Table:
    table = _table(of_what, "compared", "flips", "from A to B")
    flipped = [(name, group) for name, group in ranked(groups) if group.flips]
    for name, group in flipped[:MOST_ROWS]:
        ways = ", ".join(f"{arrow(way)} {count}" for way, count in group.transitions.most_common())
        table.add_row(plain(name), str(group.compared), str(group.flips), plain(ways))
    if len(flipped) > MOST_ROWS:
        table.caption = f"and {len(flipped) - MOST_ROWS} more; --json has all"
    return table


def _shift_line(found: Comparison) -> str:
    shift = score_shift(found)
    if not shift.events:
        return "No event has a score in both A and B."
    told = ", ".join(f"{name} {value:.4g}" for name, value in shift.absolute.items() if value is not None)
    return f"{shift.moved} of {shift.events} scores moved, on average by {shift.mean:+.4f}; size of the shift: {told}."


def _movers(movers: Sequence[Change]) -> Table:
    table = _table("worst movers", "score", "decision", "nearest of A", "nearest of B")
    for change in movers[:MOST_MOVERS]:
        a, b = change.a.compared, change.b.compared
        table.add_row(
            plain(change.event.id),
            f"{_score(a.score)} -> {_score(b.score)}",
            plain(arrow(change.flip) if change.flip else b.decision),
            *(_nearest(seen.neighbours) for seen in (change.a, change.b)),
        )
    if len(movers) > MOST_MOVERS:
        table.caption = f"and {len(movers) - MOST_MOVERS} more; --json and --out have all, with more neighbours"
    return table


def _nearest(neighbours: Sequence[Near]) -> Text:
    if not neighbours:
        return Text("-")
    near = neighbours[0]
    return plain(f"{near.generator or near.label} {near.similarity:.3f}, {near.entry_id}")


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"


def _versions(found: Comparison) -> Iterator[RenderableType]:
    rows = [row for row in version_rows(found) if row.differs]
    if not rows:
        yield Text("The versions of both sides are the same.")
        return
    table = _table("versions that differ", "A", "B")
    for row in rows:
        table.add_row(plain(row.name), *(plain(_values(side)) for side in (row.a, row.b)))
    yield table


def _values(counts: Mapping[str | int | None, int]) -> str:
    # The beginning of a hash tells two apart; the whole stands in JSON and HTML.
    words = ["-" if value is None else str(value) for value in counts]
    shown = [word if len(word) <= 2 * _SHORT else f"{word[:_SHORT]}…" for word in words]
    if len(shown) == 1:
        return shown[0]
    return ", ".join(f"{word} ({events})" for word, events in zip(shown, counts.values(), strict=True))


def _gates(gates: Sequence[GateResult]) -> Table:
    table = _table("gate", "allowed", "found", "")
    for gate in gates:
        verdict = Text("passed", "green") if gate.passed else Text("exceeded", "bold red")
        table.add_row(plain(gate.name), gate.allowed, plain(gate.found), verdict)
    return table


def _table(*names: str) -> Table:
    table = Table()
    for name in names:
        table.add_column(name, overflow="fold")
    return table
