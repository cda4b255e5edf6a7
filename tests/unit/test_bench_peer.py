"""
The peer beside the worker: what it answers is held against our vectors, and its absence is said with the remedy.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from worker.bench import peer_child
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


def test_the_peer_tells_nobody_what_it_computes(tmp_path: Path) -> None:
    """
    Should its environment hold ONNX Runtime, that is told before it is loaded to be silent.
    """
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{MARK}{{\"ready\": true}}'\necho $ORT_DISABLE_TELEMETRY > {tmp_path}/told\n")
    python.chmod(0o755)
    with running_peer(python, an_encoder("ViT-B-32", tmp_path), tmp_path, loaders=1) as peer:
        peer._process.wait(60)

    assert "1\n" == (tmp_path / "told").read_text()


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


class SlowToStart:
    """
    The peer's reader on a clock of ours: five seconds until its loaders are there, then one for each picture.
    """

    now_s = 100.0

    def __init__(self, _sampler: object, transform: Callable[[str], str], *_more: object, **_options: object) -> None:
        self._transform = transform

    def __iter__(self) -> Iterator[list[str]]:
        """
        Two batches; the loaders go after the last.
        """
        SlowToStart.now_s += 5
        for batch in (["a", "b"], ["c"]):
            SlowToStart.now_s += len(batch) - 1
            yield [self._transform(name) for name in batch]
            SlowToStart.now_s += 1
        SlowToStart.now_s += 7


def test_starting_the_peers_loaders_is_not_in_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The clock runs from the first picture begun to the last vector, and every picture counts.
    """
    reader = SimpleNamespace(FilesReader=SlowToStart)
    clock = SimpleNamespace(monotonic=lambda: SlowToStart.now_s, perf_counter=lambda: SlowToStart.now_s)
    monkeypatch.setattr(peer_child, "import_module", lambda _name: reader)
    monkeypatch.setattr(peer_child, "time", clock)
    monkeypatch.setattr(SlowToStart, "now_s", 100.0)

    def mapper(batch: list[str]) -> dict[str, Any]:
        return {"image_embs": np.ones((len(batch), 2)) * ord(batch[0])}

    found = peer_child.embedded({"batch": 2, "loaders": 1}, str.lower, None, mapper, "folder")

    assert 3 == found["images"]
    assert 1.0 == found["wall_s"]
    assert [97.0, 97.0] == found["first"]


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
