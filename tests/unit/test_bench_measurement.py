"""
How benchmarks measure: medians and spread, turns, CPU time of processes and their children.
"""

import subprocess
import sys
from dataclasses import replace
from typing import Any, Final

import pytest

from worker.bench import measurement
from worker.bench.cpu_time import cores_here, cpu_s_of_machine, cpu_s_of_trees, own_cpu_s
from worker.bench.machine import machine
from worker.bench.measurement import Measured, Reading, Took, interleaved, ratios, took, took_here

BURN_S = 0.5
"""Much longer than a collection of this process's garbage, which may come in between."""

PIPES: Final[dict[str, Any]] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
BURN = f"import time\nwhile time.process_time() < {BURN_S}: pass"


def test_a_figure_is_the_median_of_its_rounds() -> None:
    """
    The middle round, with the lowest and the highest beside it; the spread is their distance over the median.
    """
    figure = Measured.of("rate", "uploads/s", [12.0, 8.0, 10.0])

    assert figure == Measured("rate", "uploads/s", 10.0, 8.0, 12.0, 3)
    assert figure.spread == pytest.approx(0.4)
    assert figure.as_object()["median"] == 10.0


def test_no_round_is_no_figure() -> None:
    """
    A median of nothing is refused.
    """
    with pytest.raises(ValueError, match="found no round"):
        Measured.of("rate", "uploads/s", [])


def test_every_round_begins_with_another_contender() -> None:
    """
    All have one turn in each round, and who is first changes, so that what drifts favours nobody.
    """
    turns: list[str] = []

    def turn(name: str) -> int:
        turns.append(name)
        return len(turns)

    found = interleaved({"a": lambda: turn("a"), "b": lambda: turn("b"), "c": lambda: turn("c")}, 3)

    assert turns == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert found == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


def test_ratios_are_taken_round_by_round() -> None:
    """
    What slowed down the machine in one round is in both sides of that round's ratio.
    """
    assert ratios([10.0, 5.0], [5.0, 2.5]) == [2.0, 2.0]


def test_children_count_as_long_as_they_run_and_afterwards() -> None:
    """
    CPU time of a child process is that of whoever started it.
    """
    before_s = own_cpu_s()

    spent = took(lambda: subprocess.run([sys.executable, "-c", BURN], check=True))

    assert spent.cpu_s >= BURN_S
    assert own_cpu_s() - before_s >= BURN_S


def test_what_children_do_beside_is_no_cost_of_ours() -> None:
    """
    A server that is a child is busy while a stage is measured: that is not what the stage takes.
    """
    with subprocess.Popen([sys.executable, "-c", f"input()\n{BURN}\nprint(flush=True)\ninput()"], **PIPES) as process:

        def work() -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            process.stdout.readline()

        spent = took_here(work)
        process.communicate("\n")

    assert spent.cpu_s < BURN_S / 2


def test_a_tree_counts_each_process_once() -> None:
    """
    Naming a process and its child counts the child once; who is gone counts for nothing.
    """
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        once_s = cpu_s_of_trees([process.pid])
        twice_s = cpu_s_of_trees([process.pid, process.pid])
        process.communicate("\n")

    assert 0.9 * BURN_S <= once_s < 10 * BURN_S  # the kernel counts in ticks
    assert twice_s == once_s
    assert cpu_s_of_trees([process.pid]) == 0.0


def test_what_others_use_is_a_share_of_all_cores() -> None:
    """
    What the machine did and none of ours did is what others did.
    """
    before = Reading(wall_s=0.0, cpu_s=1.0, machine_s=100.0, ours_s=4.0)
    after = Reading(wall_s=10.0, cpu_s=3.0, machine_s=100.0 + 5.0, ours_s=6.0)

    assert before.until(after) == Took(10.0, 2.0, 3.0 / (10.0 * cores_here()))
    assert before.until(replace(after, ours_s=13.0)).others == 0.0


def test_a_child_that_is_measured_is_ours_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A process that is measured, or stands beside it, is a child of this one, too: what it did is not taken off twice.
    """
    with subprocess.Popen([sys.executable, "-c", f"input()\n{BURN}\nprint(flush=True)\ninput()"], **PIPES) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        monkeypatch.setattr(measurement, "cpu_s_of_machine", iter([100.0, 100.95]).__next__)
        before = Reading.now([process.pid], beside=[process.pid])
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        after = Reading.now([process.pid], beside=[process.pid])
        process.communicate("\n")
    spent = before.until(after)
    others_s = spent.others * spent.wall_s * cores_here()

    assert spent.cpu_s > BURN_S / 2
    assert 0.9 < others_s + spent.cpu_s < 0.951


def test_the_machine_is_described_without_its_name() -> None:
    """
    Cores, memory and packages are told; the machine's CPU time goes on.
    """
    told = machine()

    assert told["cores"] == cores_here()
    assert isinstance(told["packages"], dict)
    assert "torch" in told["packages"]
    assert "host" not in " ".join(told)
    assert cpu_s_of_machine() > 0
