"""
A build that is killed outright, by a signal that cannot be caught, goes on where it was.
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bank_builders import NOON, a_source
from tests.fake_encoder import FakeEncoder, fake_embedder
from worker.bank.build import BuildPlan, build_bank
from worker.bank.files import load_bank
from worker.bank.manifest import GENERATED as SHIPPED_QUESTION
from worker.bank.sources import list_source

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
from pathlib import Path
from tests.fake_encoder import FakeEncoder, fake_embedder
from worker.bank import embedding
from worker.bank.build import BuildPlan, build_bank
from worker.bank.manifest import GENERATED
from worker.bank.sources import list_source

class Stuck(FakeEncoder):
    def encode(self, pixels):
        if self.encoded >= 7:
            print("stuck", flush=True)
            sys.stdin.read()
        return super().encode(pixels)

embedding.PART = 3
source, out = Path(sys.argv[1]), Path(sys.argv[2])
build_bank(list_source(source, GENERATED), out, embedder=fake_embedder(Stuck()), plan=BuildPlan(id="small"))
"""


def test_a_killed_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    After SIGKILL in the middle there is no bank; the next run embeds only what was missing.
    """
    monkeypatch.setattr("worker.bank.embedding.PART", 3)
    source, out = a_source(tmp_path / "source"), tmp_path / "bank"
    command = [sys.executable, "-c", SCRIPT, str(source), str(out)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)}
    ) as child:
        assert child.stdout is not None
        said = child.stdout.readline()
        child.send_signal(signal.SIGKILL)

    assert said == b"stuck\n"
    assert not out.exists()

    encoder = FakeEncoder()
    plan = BuildPlan(id="small", created_at=NOON)
    report = build_bank(list_source(source, SHIPPED_QUESTION), out, embedder=fake_embedder(encoder), plan=plan)

    assert report.reused == 6
    assert encoder.encoded == 1 + 4
    assert load_bank(out).manifest.counts.entries == 10
