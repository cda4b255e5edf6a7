"""
Our side of the peer: clip-retrieval in an environment of its own, embedding the same pictures with the same weights.

It reads files, encodes and stops there: no broker, no cache, no search, no verdict. What it does is in
``peer_child.py``.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import open_clip
from open_clip.constants import HF_SAFE_WEIGHTS_NAME

from worker.adapters.onnx_unheard import UNHEARD
from worker.bench.encoders import BenchEncoder
from worker.bench.live import lane_environ
from worker.bench.peer_child import MARK
from worker.errors import CannotStart, ConfigInvalid

INSTALLED: Final = "clip-retrieval 'setuptools<81'"
"""For pip. Its OpenAI model code still imports pkg_resources, which later setuptools no longer bring."""

BATCH: Final = 32
LEAST_COSINE: Final = 0.99
"""Between the peer's vector and ours of one picture; it keeps float16, and its pixels may differ by a rounding."""

_LOG_LINES: Final = 8


@dataclass(frozen=True, slots=True)
class PeerRound:
    """
    What the peer took for a folder of pictures.
    """

    images: int
    wall_s: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """
        Pictures per second, from the first picture begun to the last vector; starting the loaders is not in it.
        """
        return self.images / self.wall_s


class Peer:
    """
    A peer that has loaded; for one thread.
    """

    def __init__(self, process: "subprocess.Popen[str]", log_file: Path) -> None:
        self._process = process
        self._log_file = log_file

    def embedded(self, folder: Path, ours: Sequence[float] | None = None) -> PeerRound:
        """
        Embed all pictures of a folder; with ``ours``, the first by name must come out as this vector.

        Raises ``CannotStart`` when the peer ends, or embeds something else: then nothing would be compared.
        """
        if self._process.stdin is None:
            raise CannotStart("the peer has no standard input; start it again")
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        found = self.answer()
        if ours is not None:
            cosine = cosine_of(found["first"], ours)
            if cosine < LEAST_COSINE:
                raise CannotStart(
                    f"the peer's vector of the first picture has cosine {cosine:.4f} with ours, expected at least "
                    f"{LEAST_COSINE}: it computes something else, and speeds of different things are not compared"
                )
        return PeerRound(found["images"], found["wall_s"], found["cpu_s"])

    def answer(self) -> dict[str, Any]:
        """
        The next line that is meant for us.
        """
        for line in self._process.stdout or ():
            if line.startswith(MARK):
                answer: dict[str, Any] = json.loads(line.removeprefix(MARK))
                return answer
        lines = self._log_file.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        raise CannotStart(
            "the peer ended; --peer-python names an interpreter with clip-retrieval installed, in an environment of "
            f"its own: pip install {INSTALLED}. Its last lines:\n" + "\n".join(lines)
        )


@contextmanager
def running_peer(python: Path, encoder: BenchEncoder, folder: Path, *, loaders: int) -> Iterator[Peer]:
    """
    The peer of this interpreter, loaded with the encoder's weights, while inside.

    Raises ``ConfigInvalid`` for a model that it cannot be given by an open_clip name, and ``CannotStart``.
    """
    if encoder.name not in open_clip.list_models():
        raise ConfigInvalid(
            f"--peer-python takes architectures of open_clip, found the model {encoder.name}: name one such as ViT-B-32"
        )
    job = {
        "arch": encoder.name,
        "visual": str(encoder.folder / HF_SAFE_WEIGHTS_NAME),
        "checkpoint": str(folder / "peer.safetensors"),
        "batch": BATCH,
        "loaders": loaders,
    }
    child = Path(__file__).with_name("peer_child.py")
    log_file = folder / "peer.log"
    with (
        log_file.open("w") as log,
        subprocess.Popen(  # noqa: S603 - the interpreter that the caller names, and our own script
            [str(python), str(child), json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            # It may load ONNX Runtime, whatever its environment holds: see onnx_unheard.py.
            env={**lane_environ(os.environ), UNHEARD: "1"},
        ) as process,
    ):
        peer = Peer(process, log_file)
        try:
            peer.answer()
            yield peer
        finally:
            process.terminate()


def cosine_of(one: Sequence[float], other: Sequence[float]) -> float:
    """
    Between two vectors.
    """
    left, right = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))
