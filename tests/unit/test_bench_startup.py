"""
What ``touchstone bench startup`` makes of a log, of the kernel's figures and of its rounds.
"""

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worker.bench.memory import MEBI, Held, held_by, peak_bytes, tree_of
from worker.bench.startup import Start, StartupPlan, log_lines, process_began_s, report_of

MAPPER = (
    "import mmap, sys\n"
    "file = open(sys.argv[1], 'rb')\n"
    "mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
    "print(sum(mapped[at] for at in range(0, len(mapped), 4096)), flush=True)\n"
    "sys.stdin.read()\n"
)
TAKER = (
    "import mmap, sys\n"
    "print('before', flush=True), sys.stdin.readline()\n"
    "taken = mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE)\n"
    "taken.write(b'x' * (256 << 20))\n"
    "print('during', flush=True), sys.stdin.readline()\n"
    "taken.close()\n"
    "print('after', flush=True), sys.stdin.readline()\n"
)
SLEEPER = "import sys, time; print('there', flush=True); sys.stdin.read()"


def a_start(ready_s: float, *, mib: int = 1000) -> Start:
    """
    A start that took so long.
    """
    held = Held(mib * MEBI, (mib - 300) * MEBI, (mib - 100) * MEBI, 50 * MEBI)
    return Start(
        imported_s=1.0,
        loaded_s=ready_s - 1,
        ready_s=ready_s,
        cpu_s=ready_s,
        phases={"bank": 0.5, "encoder": ready_s - 2},
        held=(held, held, held),
        peak_bytes=(mib + 500) * MEBI,
    )


def test_a_log_is_read_while_it_is_written(tmp_path: Path) -> None:
    """
    Lines that are half written, and what libraries print, are passed over.
    """
    log = tmp_path / "worker.log"
    log.write_text(
        '{"event": "http.listening", "ts": "2026-01-01T00:00:01.500000Z", "port": 1234}\n'
        "a warning of some library\n[1, 2]\n"
        '{"event": "worker.started", "ts": "2026-01-01T00:00'
    )
    (line,) = log_lines(log)

    assert ("http.listening", 1_767_225_601.5, 1234) == (line.event, line.at_s, line.fields["port"])


def test_the_median_start_is_held_against_the_target() -> None:
    """
    One slow start among three does not fail it, and two do.
    """
    plan = StartupPlan(references=100, rounds=3, uploads=0)
    within = report_of([a_start(6.0), a_start(30.0), a_start(8.0)], "small", plan, [])
    beyond = report_of([a_start(6.0), a_start(30.0), a_start(12.0)], "small", plan, [])

    assert (8.0, True) == (within.summary["ready_s"], within.summary["within_target"])
    assert (12.0, False) == (beyond.summary["ready_s"], beyond.summary["within_target"])
    assert {"phase bank", "phase encoder", "resident when ready"} < {figure.name for figure in within.figures}


def test_memory_after_uploads_is_told_where_there_were_uploads() -> None:
    """
    Without any, the figures of later are left out.
    """
    figures = [
        {figure.name for figure in report_of([a_start(6.0)], "small", StartupPlan(9, 1, uploads), []).figures}
        for uploads in (0, 10)
    ]

    kinds = ("resident", "private", "proportional")
    assert {f"{kind} after {when}" for kind in kinds for when in ("half", "all")} == figures[1] - figures[0]


def test_memory_is_told_as_resident_and_the_others_beside() -> None:
    """
    What this process shares with the worker is in the first figure; a note says which is which.
    """
    told = report_of([a_start(6.0)], "small", StartupPlan(9, 1, 10), [])

    assert (1000, 700, 900) == tuple(told.summary[f"memory{kind}_mib"] for kind in ("", "_private", "_proportional"))
    assert any("memory_mib is resident" in note for note in told.notes)


def test_pages_that_others_share_are_resident_and_not_private(tmp_path: Path) -> None:
    """
    A child that maps the pages of a file holds them all, though this process maps them as well.
    """
    file = tmp_path / "library"
    file.write_bytes(b"x" * (64 * MEBI))
    command = [sys.executable, "-c", MAPPER, str(file)]
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert 64 * MEBI == mapped[:].count(b"x")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            held = held_by([child.pid])
            child.communicate()

    assert held.private_bytes <= held.proportional_bytes <= held.resident_bytes
    assert held.resident_bytes > 64 * MEBI
    assert held.resident_bytes - held.proportional_bytes > 24 * MEBI
    assert held.private_bytes < 48 * MEBI


def test_memory_that_is_taken_is_seen() -> None:
    """
    In what is held and in what is private; the peak stays when it was given back.
    """
    # A process that does nothing else: in this one, garbage of other tests may go at the same moment.
    with subprocess.Popen([sys.executable, "-c", TAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        before = _held_at_the_next_word(child)
        during = _held_at_the_next_word(child)
        after = _held_at_the_next_word(child)
        peak = peak_bytes(child.pid)
        child.communicate()

    for kind in ("proportional_bytes", "private_bytes"):
        taken = getattr(during, kind) - getattr(before, kind)
        assert 240 * MEBI < taken < 272 * MEBI
        assert getattr(after, kind) - getattr(before, kind) < 16 * MEBI
    assert peak >= during.private_bytes


def _held_at_the_next_word(child: "subprocess.Popen[bytes]") -> Held:
    """
    What the child holds once it has said that its step is done; then it is told to go on.
    """
    assert child.stdout is not None
    assert child.stdin is not None
    child.stdout.readline()
    held = held_by([child.pid])
    child.stdin.write(b"\n")
    child.stdin.flush()
    return held


def test_children_are_counted_and_the_dead_are_not() -> None:
    """
    A process that is gone holds nothing, and belongs to nobody.
    """
    with subprocess.Popen([sys.executable, "-c", SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with_child, held, began = tree_of(os.getpid()), held_by([child.pid]), process_began_s(child.pid)
        child.communicate()

    assert child.pid in with_child
    assert held.private_bytes > MEBI
    assert time.time() - 60 < began < time.time()
    assert child.pid not in tree_of(os.getpid())
    assert Held(0, 0, 0, 0) == held_by([child.pid])
    assert 0 == peak_bytes(child.pid)


def test_a_report_needs_a_start() -> None:
    """
    No median of nothing.
    """
    with pytest.raises(ValueError, match="found no round"):
        report_of([], "small", StartupPlan(9, 1, 0), [])
