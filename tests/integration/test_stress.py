"""
``touchstone stress`` and the measurement of latency, against one real worker on real servers.
"""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bank_builders import a_picture
from tests.command_line import Touchstone, command_line
from tests.servers import eventually, hold_still
from tests.worker_rig import WorkerRig
from worker.adapters.kafka_stress import KafkaPlatform
from worker.bench import stress_result
from worker.bench.latency import LatencyBench, LatencyPlan, LatencyRounds, figures_of, summary_of
from worker.settings.tree import Settings

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(300)]

UPLOADS = 80
PARTITIONS = 3
BATCH = 8


@pytest.fixture
def stress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    Runs ``touchstone stress ...`` in an empty folder, at a rate that a busy machine bears.
    """
    monkeypatch.chdir(tmp_path)
    # A busy machine is no slow sender.
    monkeypatch.setattr(stress_result, "MOST_LATE_S", 30.0)
    return command_line(monkeypatch, capsys, "stress", "--rate", "40", "--json")


def test_a_worker_under_stress(new_rig: Callable[..., WorkerRig], stress: Touchstone, tmp_path: Path) -> None:
    """
    Without a worker it ends at once with 3, and with one every upload ends once and in order, inline and from files.

    A worker that stands still is told by its silence; and of one that works, latencies by its load.
    """
    root = tmp_path / "root"
    root.mkdir()
    rig = new_rig().configure(f"fetch.file_root={json.dumps(str(root))}", f"batch.size={BATCH}")
    rig.create_topics(PARTITIONS)
    words = [word for one in rig.sets for word in ("--set", one)]
    nobody = stress("--uploads", "5", *words)
    worker = rig.start("one")
    worker.until_started()
    eventually(lambda: rig.cluster.shares() == [PARTITIONS])
    inline = stress("--uploads", UPLOADS, "--repeated", "0.4", *words)
    files = stress("--uploads", UPLOADS, "--ref", "file", "--max-p50-ms", "0", *words)
    hold_still(worker.process.pid)
    silent = stress("--uploads", "5", "--patience-s", "0.5", *words)
    os.kill(worker.process.pid, signal.SIGCONT)
    found = measured(rig.settings, root)

    assert (3, "") == (nobody.code, nobody.out)
    assert "no worker is in the group" in nobody.err
    assert (0, "") == (inline.code, inline.err), inline.out
    assert [UPLOADS] * 3 == [inline.json[name] for name in ("uploads", "acknowledged", "ended")]
    assert (0.0, {}, 0) == tuple(inline.json[name] for name in ("drop_rate", "faults", "retried"))
    assert 1 == files.code
    assert "p50 is " in files.err
    assert (UPLOADS, {}) == (files.json["ended"], files.json["faults"])
    assert (3, "") == (silent.code, silent.out)
    assert (
        "no outcome of any upload within 0.5 s, though Kafka took 5 of them. 1 workers are in the group" in silent.err
    )
    assert [] == list(root.iterdir())
    assert_told(found, deadline_ms=rig.settings.batch.deadline_ms)
    assert 0 == worker.stop()


def measured(settings: Settings, root: Path) -> LatencyRounds:
    """
    Two short rounds at half of what this worker can do.
    """
    plan = LatencyPlan(uploads=30, burst=40, rounds=2, loads=(0.5,))
    pictures = [a_picture(number, size=(96, 64), name="JPEG") for number in range(4)]
    with KafkaPlatform(settings.kafka) as platform:
        bench = LatencyBench(plan, platform, root=root, pictures=pictures, batch_size=settings.batch.size)
        return bench.measured(lambda *_: None)


def assert_told(found: LatencyRounds, *, deadline_ms: float) -> None:
    """
    All that is told follows from what was measured.
    """
    summary = summary_of(found, deadline_ms=deadline_ms, batch_size=BATCH)
    figures = {one.name: one for one in figures_of(found, deadline_ms)}

    assert 2 == len(found.capacities) == len(found.at_load[0.5])
    assert min(found.capacities) > 0
    assert figures["capacity"].median == pytest.approx(summary["capacity_per_s"], rel=0.01)
    assert figures["p50 at 50%"].low <= figures["p99 at 50%"].low <= figures["max at 50%"].low
    assert figures["p50 in the worker at 50%"].low < figures["p50 at 50%"].high
    assert 1 <= figures["micro-batch at 50%"].low <= figures["micro-batch at 50%"].high <= BATCH
