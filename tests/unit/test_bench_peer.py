"""
The peer beside the worker: what it answers is held against our vectors, and its absence is said with the remedy.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from worker.bench.encoders import BenchEncoder
from worker.bench.peer import Peer, PeerRound, cosine_of, running_peer
from worker.bench.peer_child import MARK
from worker.errors import CannotStart, ConfigInvalid

FOUND = {"images": 8, "wall_s": 4.0, "cpu_s": 6.0, "first": [0.0, 2.0]}
ANSWERS = f"print('a line of its own')\nfor _ in range(2): print({MARK!r} + {json.dumps(FOUND)!r}, flush=True)\n"


@contextmanager
def peer_that(code: str, folder: Path) -> Iterator[Peer]:
    """
    A process in the peer's place.
    """
    log_file = folder / "peer.log"
    log_file.write_text("the end of its log\n", encoding="utf-8")
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Peer(process, log_file)


def an_encoder(name: str, folder: Path) -> BenchEncoder:
    """
    An encoder of this name, without any weights.
    """
    return BenchEncoder(name, f"local-dir:{folder}", None, folder, trained=False)


def test_what_the_peer_prints_for_itself_is_passed_over(tmp_path: Path) -> None:
    """
    Only marked lines count; a vector in our direction is ours, whatever its length.
    """
    with peer_that(ANSWERS, tmp_path) as peer:
        found = peer.embedded(tmp_path, [0.0, 1.0])

    assert found == PeerRound(8, 4.0, 6.0)
    assert found.per_s == 2.0


def test_another_computation_is_not_compared(tmp_path: Path) -> None:
    """
    A vector that is not ours ends the comparison.
    """
    with peer_that(ANSWERS, tmp_path) as peer, pytest.raises(CannotStart, match=r"cosine 0\.0000"):
        peer.embedded(tmp_path, [1.0, 0.0])


def test_a_peer_that_ends_tells_its_last_lines(tmp_path: Path) -> None:
    """
    The message names the option and quotes the log.
    """
    with (
        peer_that("input()", tmp_path) as peer,
        pytest.raises(CannotStart, match=r"(?s)--peer-python.*the end of its log"),
    ):
        peer.embedded(tmp_path)


def test_an_environment_without_the_peer_is_refused(tmp_path: Path) -> None:
    """
    The interpreter of these tests has no clip-retrieval, and says which module is missing.
    """
    with (
        pytest.raises(CannotStart, match="clip_retrieval"),
        running_peer(Path(sys.executable), an_encoder("ViT-B-32", tmp_path), tmp_path, loaders=1),
    ):
        pass


def test_a_model_without_an_open_clip_name_is_refused(tmp_path: Path) -> None:
    """
    The peer builds architectures by open_clip's names.
    """
    with (
        pytest.raises(ConfigInvalid, match="local-dir:mine"),
        running_peer(Path(sys.executable), an_encoder("local-dir:mine", tmp_path), tmp_path, loaders=1),
    ):
        pass


def test_a_cosine_does_not_depend_on_length() -> None:
    """
    Parallel vectors have cosine 1, orthogonal ones 0.
    """
    assert cosine_of([3.0, 4.0], [6.0, 8.0]) == pytest.approx(1.0)
    assert cosine_of([1.0, 0.0], [0.0, 5.0]) == pytest.approx(0.0)
