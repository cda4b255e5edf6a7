"""
An encoder that one more thread may call than there are encoder threads: whoever tries a bank beside them.
"""

from collections.abc import Sequence
from threading import BoundedSemaphore

import numpy as np
from numpy.typing import NDArray

from worker.domain import EncoderFingerprint, Pixels
from worker.ports import Encoder


class SharedEncoder:
    """
    Implements ``worker.ports.Encoder`` by another one, ``calls`` at a time: a call waits for at most one batch.
    """

    def __init__(self, encoder: Encoder, *, calls: int = 1) -> None:
        self._encoder = encoder
        self._turn = BoundedSemaphore(calls)

    @property
    def fingerprint(self) -> EncoderFingerprint:
        """
        That of the encoder behind it.
        """
        return self._encoder.fingerprint

    def encode(self, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
        """
        As the encoder behind it.
        """
        with self._turn:
            return self._encoder.encode(pixels)
