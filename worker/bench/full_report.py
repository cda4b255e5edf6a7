"""
``touchstone bench report``: several benchmarks one after the other, and one table of what they found.

Each is a process of its own, so that none has another's threads or memory. Which they are is in ``report_parts.py``.
"""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from worker.bench.report import plain_number
from worker.bench.report_parts import Part, Row, rows_of

Progress = Callable[[str, int, int], None]

_ERROR_LINES: Final = 5
_GIBI: Final = 1 << 30
_BESIDE: Final = "cores_used_by_others"
_PEER, _ANY_PEER = "--peer-python", "peer/bin/python"


@dataclass(frozen=True, slots=True)
class Ran:
    """
    One part, how long it took, and the object that it printed; where it failed, ``error`` says why, and there is none.
    """

    part: Part
    took_s: float
    told: Mapping[str, Any]
    error: str | None = None

    @property
    def command(self) -> str:
        """
        The command line of this part alone; where the peer's interpreter lies is this machine's affair.
        """
        before = ("", *self.part.words)
        words = [_ANY_PEER if last == _PEER else word for last, word in zip(before, self.part.words, strict=False)]
        return shlex.join(("touchstone", "bench", *words))


@dataclass(frozen=True, slots=True)
class Line:
    """
    One row of the table, in words.
    """

    label: str
    of: str
    measured: str
    rounds: str
    target: str
    met: str


@dataclass(frozen=True, slots=True)
class FullReport:
    """
    All parts that ran, in order, on this machine.
    """

    ran: Sequence[Ran]
    machine: Mapping[str, object]
    began: datetime

    def as_object(self) -> dict[str, object]:
        """
        For JSON: every part's own object by the part's name.
        """
        return {
            "began": self.began.isoformat(timespec="seconds"),
            "took_s": round(sum(one.took_s for one in self.ran), 1),
            "machine": dict(self.machine),
            "parts": {
                one.part.name: {
                    "command": one.command,
                    "took_s": round(one.took_s, 1),
                    "error": one.error,
                    "result": one.told or None,
                }
                for one in self.ran
            },
        }

    def as_markdown(self) -> str:
        """
        The machine, one table of all figures, the commands that print them, and what must be known of them.
        """
        lines = [line for one in self.ran for line in lines_of(one)]
        table = ["| figure | of | median | rounds | target | met |", "|---|---|--:|--:|--:|---|"]
        table += [
            f"| {one.label} | {one.of} | {one.measured} | {one.rounds} | {one.target} | {one.met} |" for one in lines
        ]
        took_s = sum(one.took_s for one in self.ran)
        text = [
            f"# Measured on {self.began.date().isoformat()}",
            self._machine_in_words(),
            "\n".join(table),
            f"The commands, {took_s / 60:.1f} minutes in all:",
            "\n".join(f"- `{one.command}` ({one.took_s:.0f} s)" for one in self.ran),
        ]
        failed = [f"- `{one.command}`: {one.error}" for one in self.ran if one.error is not None]
        if failed:
            text += ["**These failed:**", "\n".join(failed)]
        notes = list(dict.fromkeys(str(note) for one in self.ran for note in one.told.get("notes", ())))
        if notes:
            text += ["Notes:", "\n".join(f"- {note}" for note in notes)]
        return "\n\n".join(text) + "\n"

    def _machine_in_words(self) -> str:
        told = self.machine
        flags = " ".join(_listed(told.get("cpu_flags"))) or "no flags of note"
        packages = told.get("packages")
        named = (
            ", ".join(f"{name} {version}" for name, version in packages.items()) if isinstance(packages, dict) else ""
        )
        memory = told.get("memory_bytes")
        gibi = f"{memory / _GIBI:.0f} GiB" if isinstance(memory, int) else "unknown memory"
        beside = [one.told["figures"][_BESIDE]["high"] for one in self.ran if _BESIDE in one.told.get("figures", {})]
        others = f" Others used {max(beside):.1%} of the cores at most." if beside else ""
        return (
            f"{told.get('cpu')}, {told.get('cores')} cores ({flags}), {gibi}, accelerator: "
            f"{told.get('accelerator') or 'none'}; {told.get('system')}, Python {told.get('python')}; {named}.{others}"
        )


def run_report(
    parts: Sequence[Part],
    machine: Mapping[str, object],
    *,
    folder: Path,
    progress: Progress,
    program: Sequence[str] = (sys.executable, "-m", "worker"),
) -> FullReport:
    """
    All parts in order; one that fails is told as that, and the others go on.
    """
    began = datetime.now(UTC)
    ran: list[Ran] = []
    for number, part in enumerate(parts):
        progress(f"report: {part.name}", number, len(parts))
        ran.append(_run(part, folder, program))
    return FullReport(ran, machine, began)


def lines_of(ran: Ran) -> list[Line]:
    """
    The rows of one part; of one that failed a single one, which says so.

    A figure that a benchmark does not tell here, as that of a peer without one, has no row.
    """
    if ran.error is not None:
        return [Line(f"`{ran.part.name}`", ran.part.of, "failed", "", "", "")]
    targets = {str(one["name"]): one for one in ran.told.get("targets", ())}
    lines: list[Line] = []
    for row in rows_of(ran.part, ran.told):
        value = _found(ran.told, row.path)
        if value is not None:
            lines.append(_line(row, ran, value, targets.pop(row.held_against, None)))
    for name, one in targets.items():
        lines.append(_line(Row(name, "", ()), ran, one["measured"], one))
    return lines


def _line(row: Row, ran: Ran, value: Any, target: Mapping[str, Any] | None) -> Line:  # noqa: ANN401 - of a JSON object
    unit = "" if row.unit in {"", "1", "x"} else f" {row.unit}"
    measured = "not measured" if value is None else f"{plain_number(float(value))}{unit}"
    if target is None:
        return Line(row.label, ran.part.of, measured, _spread(row, ran.told), "", "")
    met = {True: "yes", False: "**missed**"}.get(
        target["met"], f"set for {target['set_for']}" if target["set_for"] else ""
    )
    return Line(row.label, ran.part.of, measured, _spread(row, ran.told), str(target["target"]), met)


def _spread(row: Row, told: Mapping[str, Any]) -> str:
    """
    The lowest and the highest round, of a figure that has more than one.
    """
    figures = told.get("figures", {})
    name = row.path[1] if row.path[:1] == ("figures",) else row.path[-1] if row.path else ""
    figure = figures.get(name)
    if figure is None or figure["rounds"] < 2:  # noqa: PLR2004 - a single round has no spread
        return ""
    return f"{plain_number(figure['low'])} to {plain_number(figure['high'])}"


def _found(told: Mapping[str, Any], path: Iterable[str]) -> Any:  # noqa: ANN401 - of a JSON object
    value: Any = told
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _listed(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _run(part: Part, folder: Path, program: Sequence[str]) -> Ran:
    command = [*program, "bench", *part.words, "--json", "--work-folder", str(folder)]
    began_s = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    took_s = time.monotonic() - began_s
    try:
        told = json.loads(done.stdout) if done.returncode == 0 else {}
    except ValueError:
        told = {}
    if told:
        return Ran(part, took_s, told)
    last = [line for line in done.stderr.splitlines() if line.strip()][-_ERROR_LINES:]
    return Ran(part, took_s, {}, f"it ended with {done.returncode}: {' / '.join(last) or 'without a word'}")
