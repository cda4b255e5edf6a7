"""
One table of several benchmarks: what is run, what is told of it, and what a target comes to.
"""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from worker.bench.full_report import FullReport, Ran, lines_of, run_report
from worker.bench.machine import machine
from worker.bench.report import Report, tell
from worker.bench.report_parts import CPU_PARTS, GPU_PARTS, Asked, Part, Row, cpu_parts, gpu_parts, rows_of
from worker.bench.targets import Target
from worker.cli import bench_report

ASKED = Asked("ViT-B-32", ["flow.drain_timeout_s=5"], 2, "bf16", ("openvino", "int8"), Path(sys.executable))
EVERY_PART = [*cpu_parts(ASKED).values(), *gpu_parts(ASKED).values()]

TOLD: Mapping[str, Any] = {
    "images_per_s": 55.894,
    "roofline_fraction": 0.74,
    "figures": {
        "images_per_s": {"median": 55.894, "low": 53.1, "high": 55.92, "rounds": 3},
        "cores_used_by_others": {"median": 0.0, "low": 0.0, "high": 0.004, "rounds": 3},
    },
    "targets": [
        {"name": "roofline_fraction", "target": ">= 0.9", "measured": 0.74, "met": False, "set_for": None},
        {"name": "cached_per_s", "target": ">= 3,000", "measured": 1432.0, "met": None, "set_for": "two cores"},
    ],
    "notes": ["the weights are random"],
}
PART = Part(
    "e2e",
    "torch, bf16",
    ("e2e", "--uploads", "24"),
    (
        Row("uploads per second", "1/s", ("images_per_s",)),
        Row("share of the roofline", "1", ("roofline_fraction",)),
        Row("times the peer", "x", ("ratio_to_peer",)),
    ),
)
STAND_IN = (
    "import json, sys\n"
    "words = sys.argv[1:]\n"
    "assert words[0] == 'bench' and words[-3:-1] == ['--json', '--work-folder'], words\n"
    "if words[1] == 'broken': sys.exit('no such thing')\n"
    f"print(json.dumps({TOLD!r}))\n"
)


@pytest.mark.parametrize(
    ("target", "met", "said"),
    [
        (Target("rate", 3000, 3000.0), True, "yes"),
        (Target("rate", 3000, 2999.9), False, "MISSED"),
        (Target("overhead", 0.5, 0.65, at_least=False), False, "MISSED"),
        (Target("overhead", 0.5, 0.5, at_least=False), True, "yes"),
        (Target("rate", 3000, None), None, "not measured"),
        (Target("rate", 3000, 1.0, given="two cores"), None, "not judged: set for two cores"),
    ],
)
def test_a_target_is_met_on_its_side(target: Target, met: bool | None, said: str) -> None:
    """
    At the bound it is met; nothing measured, or something else than it was set for, is neither.
    """
    assert (met, said) == (target.met, target.verdict)


def test_targets_stand_in_the_object_and_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """
    With what was asked, what was measured, and whether that is as asked.
    """
    report = Report("title", {"cached_per_s": 1432.0}, [], machine(), targets=[Target("cached_per_s", 3000, 1432.0)])
    tell(report, as_json=False)
    table = capsys.readouterr().out
    tell(report, as_json=True)
    told = json.loads(capsys.readouterr().out)

    assert all(word in table for word in ("cached_per_s", ">= 3,000", "1,432", "MISSED"))
    assert [{"name": "cached_per_s", "target": ">= 3,000", "measured": 1432.0, "met": False, "set_for": None}] == told[
        "targets"
    ]


@pytest.mark.parametrize("part", EVERY_PART, ids=lambda part: f"{part.name} of {part.of}")
def test_every_part_is_a_command_line_that_there_is(part: Part) -> None:
    """
    Its options are those of its benchmark, which are looked at without running it.
    """
    name = part.words[0]
    command: click.Command = getattr(import_module(f"worker.cli.bench_{name}"), name)

    assert command.make_context(name, [*part.words[1:], "--json", "--work-folder", "anywhere"]).params["as_json"]


def test_a_command_names_no_path_of_this_machine() -> None:
    """
    Where the peer's interpreter lies is told to the benchmark, and to no reader.
    """
    ran = Ran(cpu_parts(ASKED)["e2e"], 1.0, {})

    assert str(ASKED.peer_python) in ran.part.words
    assert "--peer-python peer/bin/python --model ViT-B-32 --precision bf16" in ran.command
    assert str(ASKED.peer_python) not in ran.command


def test_a_report_has_all_its_parts() -> None:
    """
    On a CPU and on a GPU; without another backend there is none to measure.
    """
    assert set(CPU_PARTS) | {"sweep"} == set(cpu_parts(ASKED))
    assert set(GPU_PARTS) == set(gpu_parts(ASKED))
    assert set(cpu_parts(ASKED)) - {"e2e-fast"} == set(cpu_parts(Asked("ViT-B-32")))


def test_a_figure_has_a_row_with_its_spread_and_its_target() -> None:
    """
    One that is not told has none; a target without a row gets one.
    """
    rate, share, known = lines_of(Ran(PART, 60.0, TOLD))

    assert ("55.9 1/s", "53.1 to 55.9", "", "") == (rate.measured, rate.rounds, rate.target, rate.met)
    assert ("0.74", "", ">= 0.9", "**missed**") == (share.measured, share.rounds, share.target, share.met)
    assert ("cached_per_s", "1,432", ">= 3,000", "set for two cores") == (
        known.label,
        known.measured,
        known.target,
        known.met,
    )


def test_a_sweep_has_a_row_for_each_value() -> None:
    """
    Whichever values there were.
    """
    part = cpu_parts(ASKED)["scaling"]
    figures: dict[str, object] = {f"2 workers, 4 partitions: {what}": {} for what in ("rate", "share of linear", "cpu")}

    assert [("figures", name, "median") for name in figures][:2] == [
        row.path for row in rows_of(part, {"figures": figures})
    ]
    assert [] == rows_of(part, {})


def test_parts_are_run_in_turn_and_a_broken_one_is_told(tmp_path: Path) -> None:
    """
    The others go on; the table says which failed, and why stands beneath it, with the machine and every command.
    """
    broken = Part("broken", "nothing", ("broken",), ())
    told: list[tuple[str, int, int]] = []
    found = run_report(
        [broken, PART],
        machine(),
        folder=tmp_path,
        progress=lambda *said: told.append(said),
        program=(sys.executable, "-c", STAND_IN),
    )
    text, whole = found.as_markdown(), found.as_object()
    parts: Any = whole["parts"]

    assert [("report: broken", 0, 2), ("report: e2e", 1, 2)] == told
    assert "| `broken` | nothing | failed |" in text
    assert "- `touchstone bench broken`: it ended with 1: no such thing" in text
    assert "| uploads per second | torch, bf16 | 55.9 1/s | 53.1 to 55.9 |  |  |" in text
    assert "- `touchstone bench e2e --uploads 24` (" in text
    assert "Others used 0.4% of the cores at most." in text
    assert str(tmp_path) not in text
    assert (TOLD, None) == (parts["e2e"]["result"], parts["broken"]["result"])


def test_the_command_writes_what_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    JSON where the name says so, else Markdown; 1 where a part failed. Only the parts that were named are run.
    """
    asked: list[str] = []

    def run(parts: list[Part], told: Mapping[str, object], **_: object) -> FullReport:
        asked.extend(part.name for part in parts)
        ran = [
            Ran(part, 1.0, {} if part.name == "cache" else TOLD, "broke" if part.name == "cache" else None)
            for part in parts
        ]
        return FullReport(ran, told, datetime(2026, 11, 22, tzinfo=UTC))

    monkeypatch.setattr("worker.bench.full_report.run_report", run)
    words = ["--device", "cpu", "--part", "cache", "--part", "e2e", "--out"]
    files = [tmp_path / "report.md", tmp_path / "report.json"]
    ran = CliRunner().invoke(
        bench_report.report, [*words, str(files[0]), "--out", str(files[1])], standalone_mode=False
    )

    assert 1 == ran.return_value
    assert ["e2e", "cache"] == asked
    assert files[0].read_text().startswith("# Measured on 2026-11-22\n")
    assert "broke" == json.loads(files[1].read_text())["parts"]["cache"]["error"]


def test_a_part_that_there_is_not_is_refused() -> None:
    """
    With those that there are.
    """
    ran = CliRunner().invoke(bench_report.report, ["--device", "cuda", "--part", "scaling"])

    assert 2 == ran.exit_code
    assert "encode-large" in ran.output
