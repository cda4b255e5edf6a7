"""
Banks built over actors of a real Ray cluster on this machine: the same as without it, whoever dies in between.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bank_builders import a_source, build_small, snapshot
from tests.command_line import command_line
from tests.fake_encoder import fake_embedder
from tests.ray_actors import open_fake, order
from worker.adapters.ray_cluster import cluster
from worker.adapters.ray_embedding import RayEngine
from worker.adapters.ray_room import RayRoom
from worker.dev.small_encoder import write_small_encoder

ROOT = Path(__file__).parents[2]
ATTEMPTS = 3
"""Ray gives a node half a minute to start, and no setting changes that: on a busy machine it may need another."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.bank_builders import NOON
from tests.fake_encoder import fake_embedder
from tests.ray_actors import open_fake
from worker.adapters.ray_embedding import RayEngine
from worker.adapters.ray_room import RayRoom
from worker.bank import embedding
from worker.bank.build import BuildPlan, build_bank
from worker.bank.manifest import GENERATED
from worker.bank.sources import list_source

def progress(what, done, total):
    if what == "embedding" and done:
        print("kept", done, flush=True)

embedding.PART = 3
source, out, address, order = sys.argv[1:]
engine = RayEngine(RayRoom(actors=1, address=address), open_fake, order)
plan = BuildPlan(id="small", created_at=NOON)
embedder = replace(fake_embedder(), engine=engine)
build_bank(list_source(Path(source), GENERATED), Path(out), embedder=embedder, plan=plan, progress=progress)
"""


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """
    One cluster for all tests of this file, to which this process is connected.
    """
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(ROOT))  # actors import what the tests open in them
        with ExitStack() as stack:
            for left in reversed(range(ATTEMPTS)):
                try:
                    stack.enter_context(cluster(RayRoom(actors=2)))
                    break
                except Exception as fault:
                    if not left or "timed out during startup" not in str(fault):
                        raise
            import ray  # noqa: PLC0415 - ray_cluster sets the environment first

            yield ray.get_runtime_context().gcs_address


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Parts of three references, so that a few pictures make several.
    """
    monkeypatch.setattr("worker.bank.embedding.PART", 3)


def test_the_command_builds_the_same_bank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ray_address: str
) -> None:
    """
    ``touchstone bank build --engine ray`` over two actors writes the files that ``--engine local`` writes.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("worker.bank.embedding.PART", 12)
    small = write_small_encoder(tmp_path / "model")
    source = a_source(tmp_path / "source", reals=8, fakes=6)
    (source / "real/none.png").write_bytes(b"no picture")
    touchstone = command_line(monkeypatch, capsys, "bank")
    sets = [f"encoder.model={small.model}", f"encoder.checkpoint_sha256={small.checkpoint_sha256}"]
    sets += ["encoder.device=cpu", "encoder.threads=1", "decode.isolation=threads"]
    asked = ["build", str(source), "--id", "same", *(word for one in sets for word in ("--set", one))]
    local = touchstone(*asked, "--out", "local")
    ray = touchstone(*asked, "--out", "ray", "--engine", "ray", "--actors", "2")
    first, second = snapshot(tmp_path / "local"), snapshot(tmp_path / "ray")
    differ = {name for name in first | second if first.get(name) != second.get(name)}

    assert (0, 0) == (local.code, ray.code), ray.err
    assert {"manifest.json", "manifest.sha256"} >= differ  # it says when it was built
    assert "real/none.png" in ray.out


@pytest.mark.usefixtures("small_parts")
def test_whoever_is_killed_the_bank_is_the_same(tmp_path: Path, ray_address: str) -> None:
    """
    After SIGKILL of the build there is no bank; the next embeds what was missing, though its actor is killed at work.
    """
    source, gate, died = a_source(tmp_path / "source"), tmp_path / "gate", tmp_path / "died"
    # The first build's actor waits in its second part of three; the second's dies at its second picture.
    waits, dies = order(allowed=3, file=gate), order(allowed=1, file=died, dies=True)
    command = [sys.executable, "-c", SCRIPT, str(source), str(tmp_path / "bank"), ray_address, waits]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}  # Ray's token for this cluster is found through it
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=env) as child:
        assert child.stdout is not None
        said = child.stdout.readline()
        child.send_signal(signal.SIGKILL)

    assert said == b"kept 3\n"
    assert not (tmp_path / "bank").exists()

    embedder = replace(fake_embedder(), engine=RayEngine(RayRoom(actors=1), open_fake, dies))
    report = build_small(source, tmp_path / "bank", embedder)
    build_small(source, tmp_path / "at-once")

    assert died.exists()
    assert (3, 10) == (report.reused, report.added)
    assert snapshot(tmp_path / "at-once") == snapshot(tmp_path / "bank")
