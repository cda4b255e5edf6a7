"""
What actors open in tests: the fake encoder, with decoders that die once or wait. Ray imports this in its processes.
"""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

from tests.fake_encoder import FakeEncoder, fake_embedder
from worker.bank.embedding import ReferenceEmbedder
from worker.domain import ContentHash
from worker.ports import PictureDecoder
from worker.views import DecodedPicture

_PATIENCE_S = 120


class Counting:
    """
    Decodes so many pictures in this process; then it waits for the file, or makes it and ends the process outright.

    By count, since an actor may begin with any of its jobs. Where the file is there already, it only decodes.
    """

    def __init__(self, inner: PictureDecoder, allowed: int, file: Path, *, dies: bool) -> None:
        self._inner, self._left, self._file, self._dies = inner, allowed, file, dies
        self._lock = threading.Lock()

    def decode(self, data: bytes, content_hash: ContentHash) -> DecodedPicture:
        """
        The picture, at once or later or never.
        """
        with self._lock:
            self._left -= 1
            spent = self._left < 0
        if spent and self._dies and not self._file.exists():
            self._file.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        deadline = time.monotonic() + _PATIENCE_S
        while spent and not self._file.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return self._inner.decode(data, content_hash)


def order(*, weights: int = 1, allowed: int | None = None, file: Path = Path(), dies: bool = False) -> str:
    """
    What ``open_fake`` is told: the encoder's weights, and after how many pictures its decoder waits or dies.
    """
    return json.dumps({"weights": weights, "allowed": allowed, "file": str(file), "dies": dies})


def open_fake(text: str) -> ReferenceEmbedder:
    """
    The fake embedder, as the order says.
    """
    asked = json.loads(text)
    embedder = fake_embedder(FakeEncoder(weights=asked["weights"]))
    if asked["allowed"] is None:
        return embedder
    decoder = Counting(embedder.decoder, asked["allowed"], Path(asked["file"]), dies=asked["dies"])
    return replace(embedder, decoder=decoder)
