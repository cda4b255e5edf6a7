"""
A disk that is full while a bank is built: a real file system of too few pages, and a real limit on the size of files.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.bank_builders import a_source, build_small, snapshot
from worker.errors import EXIT_CANNOT_START

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

SCRIPT = """
import json, resource, subprocess, sys
from pathlib import Path
from tests.bank_builders import build_small, snapshot
from tests.fake_encoder import FakeEncoder, fake_embedder
from worker.bank import embedding
from worker.errors import TouchstoneError

embedding.PART = 3
how, source, place = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
tried = []
for size_bytes in [int(text) for text in sys.argv[4:]]:
    if how == "disk":
        subprocess.run(["mount", "-o", f"remount,size={size_bytes}", str(place)], check=True)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))
    encoder = FakeEncoder()
    one = {"there": False, "code": 0, "told": "", "reused": 0}
    try:
        one["reused"] = build_small(source, place / "bank", fake_embedder(encoder)).reused
    except TouchstoneError as error:
        one |= {"code": error.exit_code, "told": str(error)}
    except OSError as error:
        one |= {"code": -1, "told": repr(error)}
    one["there"] = (place / "bank").exists()
    tried.append(one)
    if one["there"]:
        break
found = {str(name): str(value) for name, value in snapshot(place / "bank").items()} if tried[-1]["there"] else {}
print(json.dumps({"tried": tried, "bank": found}))
"""

IN_A_FEW_PAGES = (
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "sh",
    "-c",
    'mount -t tmpfs -o size=4096 tmpfs "$1" && shift && exec "$@"',
    "sh",
)


def built_with_little_room(how: str, folder: Path, sizes: Sequence[int]) -> dict[str, Any]:
    """
    What became of a build with so much room, and again with more, until there is a bank.
    """
    place = folder / "place"
    place.mkdir()
    source = a_source(folder / "source")
    command = [sys.executable, "-c", SCRIPT, how, str(source), str(place), *map(str, sizes)]
    if how == "disk":
        command = [*IN_A_FEW_PAGES, str(place), *command]
    # Python 3.11 keeps the byte code it could write in part, and whoever imports that module afterwards fails.
    environ = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize("how", ["disk", "limit"])
def test_a_bank_is_built_whole_or_not_at_all(how: str, tmp_path: Path) -> None:
    """
    Wherever the room ends, there is no bank, the message says what to do, and with room the build goes on to the end.
    """
    sizes = {"disk": range(4096, 2**20, 8 * 4096), "limit": [2**power for power in range(4, 22, 2)]}[how]
    if (
        how == "disk"
        and subprocess.run([*IN_A_FEW_PAGES, tmp_path, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this system lets no ordinary user mount a file system of his own; the limit is tried all the same")
    found = built_with_little_room(how, tmp_path, sizes)
    build_small(tmp_path / "source", tmp_path / "at-once")
    *refused, last = found["tried"]

    assert len(refused) >= 3
    assert {one["code"] for one in refused} == {EXIT_CANNOT_START}
    assert not any(one["there"] for one in refused)
    assert all("make room" in one["told"] for one in refused)
    assert len({one["told"] for one in refused}) > 1  # the room ended in more than one place
    assert last["reused"] > 0
    assert {str(name): str(value) for name, value in snapshot(tmp_path / "at-once").items()} == found["bank"]
