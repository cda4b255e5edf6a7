"""
What the process that decodes may do, by its own account; what it imports; and that it ends with its parent.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.decoding_rig import a_png, decoding, gone, setup_of
from tests.loop_world import eventually
from worker.errors import UploadFailed
from worker.views import ViewSpec

MEMORY_BYTES = 1 << 28
WITHOUT = ("torch", "kafka", "redis", "faiss", "boto3", "structlog", "pydantic_settings", "prometheus_client", "click")

PARENT = """
import sys, threading
from tests.decoding_rig import a_png, decoding, hash_of

with decoding(threads=2) as rig:
    rig.decode(a_png())
    hang = b"stub:hang"
    for _ in range(2):
        threading.Thread(target=rig.decoder.decode, args=(hang, hash_of(hang)), daemon=True).start()
    while len(rig.decoder.pids) < 3:
        threading.Event().wait(0.01)
    print(*rig.decoder.pids, flush=True)
    threading.Event().wait()
"""

IMPORTS = """
import sys
sys.path.append(sys.argv[1])
from worker.decoding.child import open_decoder
from worker.decoding.protocol import Setup

open_decoder(Setup.from_json(sys.stdin.buffer.read()))
print(*sys.modules)
"""


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """
    What a child says of itself, asked over its second picture.
    """
    with decoding(setup_of(memory_bytes=MEMORY_BYTES, cpu_s=7.0)) as rig:
        rig.decode(a_png())
        with pytest.raises(UploadFailed) as raised:
            rig.decode(b"stub:tell")
    found: dict[str, Any] = json.loads(raised.value.detail)
    return found


def test_limits_are_set_before_the_first_picture(told: dict[str, Any]) -> None:
    """
    Address space, CPU time, descriptors, written files and core dumps are bounded, and cannot be raised again.
    """
    limits = told["limits"]

    assert MEMORY_BYTES < limits["AS"][0] == limits["AS"][1] < MEMORY_BYTES + (1 << 30)
    assert 7 < limits["CPU"][0] < 7 + 30
    assert limits["CPU"][1] != resource.RLIM_INFINITY
    assert limits["NOFILE"] == [64, 64]
    assert limits["FSIZE"] == limits["CORE"] == [0, 0]


def test_nothing_of_the_parent_is_inherited(told: dict[str, Any]) -> None:
    """
    No variable, no descriptor but the three, no session, no way to new rights or to a dump of the parent's pictures.
    """
    assert [name for name in told["environment"] if not name.startswith("MALLOC_")] == [
        "LC_ALL",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    ]
    assert told["open"] == [0, 1, 2]
    assert told["own_session"]
    assert told["no_new_privs"] == 1
    assert told["dumpable"] == 0
    assert told["oom"] == 1000


def test_nothing_is_left_of_a_picture_in_the_memory_that_is_kept(told: dict[str, Any]) -> None:
    """
    What a decoder frees is kept for its next picture, and no buffer of that begins with what is left in it.
    """
    kept = told["kept"]

    assert kept["at_one_place"] > 0
    assert kept["left"] == 0


def test_no_file_is_written() -> None:
    """
    A child that writes to any file, also to one in memory, fails at it, and the picture with it.
    """
    with decoding() as rig:
        failure = rig.failure(b"stub:write")

    assert failure.detail == "unexpected OSError in the decoder process"


def test_signals_that_stop_a_service_do_not_end_it() -> None:
    """
    Ctrl-C and a stop of the whole group leave it to the worker, which drains.
    """
    with decoding() as rig:
        rig.decode(a_png())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            for pid in rig.decoder.pids:
                os.kill(pid, number)
        for seed in range(4):
            rig.decode(a_png(seed))

    assert rig.endings == []


def test_no_child_outlives_a_parent_that_is_killed() -> None:
    """
    After SIGKILL to the parent its children are gone, also those that hang in native code.
    """
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    parent.stdout.close()

    assert len(pids) == 3
    eventually(lambda: gone(pids))


def test_the_child_imports_little() -> None:
    """
    Whatever it is asked to look at: neither torch nor any client of a server, and no settings, which hold secrets.
    """
    everything = replace(setup_of(views=ViewSpec(realism=True)), perceptual_hash=True, credentials=True)
    program = [sys.executable, "-I", "-c", IMPORTS, str(ROOT)]
    ended = subprocess.run(program, input=everything.to_json(), capture_output=True, check=True)
    imported = {name.split(".")[0] for name in ended.stdout.decode().split()}

    assert {"PIL", "cv2", "c2pa", "pdqhash"} <= imported
    assert imported.isdisjoint(WITHOUT)
    assert b"worker.settings" not in ended.stdout
