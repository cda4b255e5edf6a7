"""
Decoding processes that resize with torch's kernel: the same pixels as here, under the same limits, and without torch.
"""

import subprocess
import sys
from dataclasses import replace

import numpy as np

from schemas.errors import ErrorCode
from tests.conftest import ROOT
from tests.decoding_rig import SIZE, a_png, decoding, hash_of, setup_of
from tests.pictures import encoded, photograph, spec_of
from worker.decoders import open_decoder_of
from worker.decoding.protocol import Setup
from worker.settings.tree import Settings

IMPORTS = """
import sys
sys.path.append(sys.argv[1])
from worker.decoding.child import open_decoder
from worker.decoding.protocol import Setup

open_decoder(Setup.from_json(sys.stdin.buffer.read()))
print(*sys.modules)
"""
IN_THREADS = Settings.model_validate({"decode": {"isolation": "threads", "credentials": False}})


def by_torch(*, memory_bytes: int = 1 << 29) -> Setup:
    """
    What a child is told that resizes with torch.
    """
    return replace(setup_of(memory_bytes=memory_bytes), spec=spec_of(SIZE, resize="torch"))


def test_processes_and_threads_find_the_same() -> None:
    """
    To the bit, though the one has the kernel alone and the other all of torch beside it.
    """
    files = [encoded(photograph(*size), "JPEG") for size in ((640, 480), (30, 21), (2100, 2200))]
    here = open_decoder_of(IN_THREADS, by_torch().spec)
    with decoding(by_torch()) as rig:
        pairs = [(rig.decode(data).pixels, here.decode(data, hash_of(data)).pixels) for data in files]

    assert all(np.array_equal(one, other) for one, other in pairs)


def test_memory_is_bounded_beside_the_library() -> None:
    """
    What the library takes for itself is not a picture's, and what a picture takes is bounded as ever.
    """
    large = encoded(photograph(64, 64).resize((6000, 4000)), "PNG", compress_level=1)
    with decoding(by_torch(memory_bytes=1 << 26)) as rig:
        rig.decode(a_png())
        failure = rig.failure(large)
        next_picture = rig.decode(encoded(photograph(1200, 900), "JPEG"))

    assert failure.code == ErrorCode.DECODE_BOMB
    assert next_picture.facts.width == 1200


def test_memory_that_runs_out_while_resizing_is_a_bomb() -> None:
    """
    A picture that can be decoded, and whose pixels cannot be brought together for the kernel, is told as one.
    """
    large = encoded(photograph(64, 64).resize((5000, 4000)), "JPEG")
    with decoding(by_torch(memory_bytes=120 << 20)) as rig:
        failure = rig.failure(large)
        next_picture = rig.decode(a_png())

    assert failure.code == ErrorCode.DECODE_BOMB
    assert next_picture.facts.width == 24
    assert rig.endings == ["out_of_memory"]


def test_the_child_imports_no_torch() -> None:
    """
    It has one of torch's libraries, which is no Python module.
    """
    program = [sys.executable, "-I", "-c", IMPORTS, str(ROOT)]
    ended = subprocess.run(program, input=by_torch().to_json(), capture_output=True, check=True)
    imported = ended.stdout.decode().split()

    assert "worker.adapters.torch_resize" in imported
    assert "torch" not in imported
