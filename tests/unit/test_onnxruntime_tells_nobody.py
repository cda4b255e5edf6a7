"""
ONNX Runtime is used without its telemetry: loading it starts no thread that sends, and leaves nothing behind.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.exported_encoders import require_backend

pytestmark = pytest.mark.timeout(400)

LOADED = """
import os
from worker.adapters import onnx_session

assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
onnx_session.onnxruntime.SessionOptions()
print("loaded")
"""
EXPORTING = """
import sys
from pathlib import Path

import torch
from worker.adapters import clip_export

def exported(*args, **more):
    import onnxruntime
    print("loaded")

torch.onnx.export = exported
clip_export._write(torch.nn.Identity(), __import__("numpy").zeros((2, 4, 4, 3), "uint8"), "small", Path("tower.onnx"))
"""


@pytest.mark.parametrize("code", [LOADED, EXPORTING], ids=["serving", "exporting"])
def test_loading_onnxruntime_tells_nobody(code: str, tmp_path: Path) -> None:
    """
    In a process of its own with an empty home, nobody is identified there: it writes who sends before it sends.
    """
    require_backend("onnxruntime")
    # Not in CI, nor where somebody has switched it off: there it would be silent by itself.
    silent = {"CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in silent}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert (0, "loaded") == (done.returncode, done.stdout.strip()), done.stderr
    assert [] == [path for path in tmp_path.rglob("*") if "nnxruntime" in path.name or "Microsoft" in path.name]
