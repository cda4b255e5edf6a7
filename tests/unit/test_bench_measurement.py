"""
How benchmarks measure: medians and spread, turns, CPU time of processes and their children.
"""

import subprocess
import sys

import pytest

from worker.bench.cpu_time import cores_here, cpu_s_of_machine, cpu_s_of_trees, own_cpu_s
from worker.bench.machine import machine
from worker.bench.measurement import Measured, Reading, Took, interleaved, ratios, took

BURN_S = 0.2
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

    assert BURN_S <= once_s < 10 * BURN_S
    assert twice_s == once_s
    assert cpu_s_of_trees([process.pid]) == 0.0


def test_what_others_use_is_a_share_of_all_cores() -> None:
    """
    What the machine did and we did not is what others did, our servers counted as ours.
    """
    before = Reading(wall_s=0.0, cpu_s=1.0, machine_s=100.0, own_s=1.0)
    after = Reading(wall_s=10.0, cpu_s=3.0, machine_s=100.0 + 5.0, own_s=3.0)

    assert before.until(after) == Took(10.0, 2.0, 3.0 / (10.0 * cores_here()))
    assert before.until(after, beside_s=3.0).others == 0.0
    assert before.until(after, beside_s=9.0).others == 0.0


def test_what_this_process_did_is_no_strangers() -> None:
    """
    While another process is measured, what the benchmark itself does is not counted as others'.
    """
    before = Reading(wall_s=0.0, cpu_s=1.0, machine_s=0.0, own_s=5.0)
    after = Reading(wall_s=1.0, cpu_s=1.5, machine_s=1.5, own_s=6.0)

    assert before.until(after).others == 0.0


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
