"""
OpenVINO is used without its telemetry: importing it sends nothing and writes nothing below the home directory.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.exported_encoders import require_backend

pytestmark = pytest.mark.timeout(400)

LOOKS = """
import socket, sys

def refuse(*args, **more):
    raise SystemExit("somebody opened a connection")

socket.socket.connect = refuse
socket.getaddrinfo = refuse
from worker.adapters.openvino_library import openvino

openvino.Core()
sent = [name for name in sys.modules if name.startswith("openvino_telemetry") and sys.modules[name] is not None]
print(openvino.__version__, sent)
"""


def test_importing_openvino_tells_nobody(tmp_path: Path) -> None:
    """
    In a process of its own with an empty home: no part of the telemetry is loaded, and nothing is left there.
    """
    require_backend("openvino")
    # Not in CI: there OpenVINO's telemetry would be silent by itself.
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    done = subprocess.run(
        [sys.executable, "-c", LOOKS],
        env={**environment, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert (0, "[]") == (done.returncode, done.stdout.strip().rpartition(" ")[2]), done.stderr
    assert [] == list(tmp_path.iterdir())
