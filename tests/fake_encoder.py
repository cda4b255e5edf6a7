"""
An encoder for tests: a seeded random projection of coarse pixels. Nothing learnt, but the same everywhere and always.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ErrorCode
from worker.adapters.realism_statistics import statistics
from worker.bank.embedding import ReferenceEmbedder
from worker.domain import EncoderFingerprint, Pixels
from worker.errors import UploadFailed
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.stages.preprocess import preprocess_spec
from worker.views import GLOBAL_ONLY, ViewSpec

SIZE = 32
DIM = 24
CELL = 4
SPEC = preprocess_spec({"size": SIZE, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)})


class FakeEncoder:
    """
    Implements ``worker.ports.Encoder``; ``weights`` seeds the projection, ``noise`` is what a precision may differ by.

    ``encoded`` counts pictures, ``batches`` holds the size of each call; after ``fail_after`` pictures it gives up for
    lack of memory, and pictures darker than ``nan_below`` come out as not a number.
    """

    def __init__(
        self, weights: int = 1, *, precision: str = "fp32", noise: float = 0.0, fail_after: int | None = None
    ) -> None:
        dims = (SIZE // CELL) ** 2 * 3
        rng = np.random.default_rng(weights)
        self._projection = rng.normal(size=(dims, DIM))
        self._projection += noise * np.random.default_rng(weights + 1000).normal(size=(dims, DIM))
        self._fail_after = fail_after
        self.nan_below = -1.0
        self.encoded = 0
        self.batches: list[int] = []
        space = _sha(f"space {weights} {SPEC.sha256}")
        self._fingerprint = EncoderFingerprint(
            model="fake/pooled",
            architecture_sha256=_sha("pooled"),
            weights_sha256=_sha(f"weights {weights}"),
            preprocess=SPEC,
            precision=precision,
            dim=DIM,
            space=space,
            id=_sha(f"{space} {precision}"),
        )

    @property
    def fingerprint(self) -> EncoderFingerprint:
        """
        What makes this encoder this encoder.
        """
        return self._fingerprint

    def encode(self, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
        """
        Raw features, float32[n, dim].
        """
        if self._fail_after is not None and self.encoded >= self._fail_after:
            raise UploadFailed(ErrorCode.ENCODE_OUT_OF_MEMORY, "the fake has no memory left")
        self.encoded += len(pixels)
        self.batches.append(len(pixels))
        stacked = np.stack(pixels).astype(np.float64) / 255
        cells = stacked.reshape(len(pixels), SIZE // CELL, CELL, SIZE // CELL, CELL, 3).mean(axis=(2, 4))
        # One picture at a time: a matrix product would sum in an order that depends on how many there are.
        features = np.stack([(cell.reshape(-1)[:, None] * self._projection).sum(axis=0) for cell in cells])
        features[stacked.mean(axis=(1, 2, 3)) < self.nan_below] = np.nan
        return features.astype(np.float32)


def fake_decoder(views: ViewSpec = GLOBAL_ONLY) -> PillowDecoder:
    """
    The real decoder, at the fake encoder's input size.
    """
    return PillowDecoder(SPEC, DecodeLimits(), None, views=views, statistics=statistics)


def fake_embedder(
    encoder: FakeEncoder | None = None, *, batch_size: int = 8, views: ViewSpec = GLOBAL_ONLY
) -> ReferenceEmbedder:
    """
    What banks are built with in tests.
    """
    decoder = fake_decoder(views)
    return ReferenceEmbedder(encoder or FakeEncoder(), decoder, batch_size=batch_size, threads=2, views=views)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
