"""
A bank of any size in memory whose vectors lie as those of pictures do: topics, scenes in them, copies.

Drawn from a seed. No picture stands behind a reference, so that a benchmark of searching needs no encoder.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

import numpy as np

from worker import __version__
from worker.bank.entries import EntryTable
from worker.bank.files import StoredBank, counts_of
from worker.bank.manifest import (
    CHECKED_FILES,
    GENERATED,
    BankManifest,
    EncoderRecord,
    PreprocessRecord,
    manifest_sha256,
    views_record,
)
from worker.bench.banks import MADE_AT, columns_of
from worker.domain import BankEntry, Embedding, Label
from worker.heads.features import Matrix
from worker.views import GLOBAL_ONLY

RANK: Final = 192
"""Directions in which vectors differ, of falling weight: far fewer than dimensions, as in CLIP's spaces."""

PER_SCENE: Final = 40
TOPICS: Final = 300
COPY: Final = 0.1
"""Of the references, the share that is another one with little noise: a cosine of some 0.98."""

_FALL: Final = 0.4
_TOPIC, _SCENE, _OWN, _SHIFT = 0.6, 0.6, 0.5, 0.15
_NOISE: Final = 0.1
_NEAR: Final = 0.1
_ROWS_AT_ONCE: Final = 65_536
_NOTHING: Final = "0" * 64


class Directions:
    """
    Where vectors lie: fixed by the seed, so that queries come from where the references came from.
    """

    def __init__(self, dim: int, scenes: int, *, seed: int = 7) -> None:
        rng = np.random.default_rng(seed)
        rank = min(RANK, dim)
        weight = np.arange(1, rank + 1, dtype=np.float32) ** -_FALL
        axes, _ = np.linalg.qr(rng.standard_normal((dim, rank)))
        self._axes = (axes * weight).T.astype(np.float32)
        self._cone = 2.0 * axes[:, 0].astype(np.float32)
        topics = _TOPIC * rng.standard_normal((TOPICS, rank), dtype=np.float32)
        own = _SCENE * rng.standard_normal((scenes, rank), dtype=np.float32)
        self._scenes = topics[rng.integers(0, TOPICS, scenes)] + own
        self._shift = _SHIFT * rng.standard_normal(rank, dtype=np.float32)

    def drawn(self, count: int, rng: np.random.Generator, *, shifted: bool) -> Matrix:
        """
        So many vectors of length 1, each of one of the scenes; ``shifted`` are those of the other label.
        """
        scene = self._scenes[rng.integers(0, len(self._scenes), count)]
        inner = scene + _OWN * rng.standard_normal(scene.shape, dtype=np.float32)
        vectors: Matrix = (inner + self._shift if shifted else inner) @ self._axes + self._cone
        return _unit(vectors)

    def unseen(self, count: int, rng: np.random.Generator, *, off_centre: float = 1.0) -> Matrix:
        """
        So many vectors of length 1 of no scene and no topic of these, so far from the centre of all as those are.
        """
        spread = off_centre * (_TOPIC**2 + _SCENE**2 + _OWN**2) ** 0.5
        inner = spread * rng.standard_normal((count, len(self._axes)), dtype=np.float32)
        vectors: Matrix = inner @ self._axes + self._cone
        return _unit(vectors)


def clustered_bank(count: int, dim: int, *, seed: int = 7) -> tuple[StoredBank, Directions]:
    """
    A bank of so many references, half of them of either label, and where its vectors come from.
    """
    directions = Directions(dim, max(1, count // PER_SCENE), seed=seed)
    rng = np.random.default_rng(seed + 1)
    vectors = np.empty((count, dim), dtype=np.float16)
    for start in range(0, count, _ROWS_AT_ONCE):
        piece = vectors[start : start + _ROWS_AT_ONCE]
        for side in (0, 1):
            piece[side::2] = directions.drawn(len(piece[side::2]), rng, shifted=bool(side))
        copies = rng.permutation(len(piece))[: int(COPY * len(piece))]
        noise = _NOISE / dim**0.5 * rng.standard_normal((len(copies), dim), dtype=np.float32)
        piece[copies] = _unit(piece[rng.integers(0, len(piece), len(copies))].astype(np.float32) + noise)
    entries = EntryTable(_entries(count))
    manifest = _manifest(count, dim, entries)
    bank = StoredBank(manifest, manifest_sha256(manifest), entries, columns_of(vectors), vectors[0], b"")
    return bank, directions


def uploads(bank: StoredBank, directions: Directions, count: int, *, seed: int = 99) -> list[Embedding]:
    """
    Embeddings as uploads bring them: two of three are new pictures of the scenes, the others hardly changed references.
    """
    rng = np.random.default_rng(seed)
    copied = count // 3
    fresh = count - copied
    new = np.concatenate(
        [directions.drawn(fresh // 2, rng, shifted=False), directions.drawn(fresh - fresh // 2, rng, shifted=True)]
    )
    old = bank.vectors[rng.integers(0, len(bank.vectors), copied)].astype(np.float32)
    old += _NOISE / old.shape[1] ** 0.5 * rng.standard_normal(old.shape, dtype=np.float32)
    rows = np.concatenate([new, _unit(old)])
    return [Embedding.from_features(row) for row in rows[rng.permutation(count)]]


def strangers(directions: Directions, count: int, *, seed: int = 98) -> list[Embedding]:
    """
    Embeddings as nobody uploads them unless to mislead: of unknown scenes, halfway between two, near the centre of all.
    """
    rng = np.random.default_rng(seed)
    mixed, near = (count + 2) // 3, (count + 1) // 3
    blends = directions.drawn(mixed, rng, shifted=False) + directions.drawn(mixed, rng, shifted=True)
    rows = [blends, directions.unseen(near, rng, off_centre=_NEAR), directions.unseen(count // 3, rng)]
    return [Embedding.from_features(row) for row in np.concatenate(rows)[rng.permutation(count)]]


def _unit(rows: Matrix) -> Matrix:
    unit: Matrix = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _entries(count: int) -> Iterator[BankEntry]:
    labels = [Label(label) for label in GENERATED.labels]
    for number in range(count):
        digest = hashlib.sha256(number.to_bytes(8, "little")).hexdigest()
        yield BankEntry(digest[:16], labels[number % 2], None, "bench", None, digest, "JPEG", 1152, 864, 150_000)


def _manifest(count: int, dim: int, entries: EntryTable) -> BankManifest:
    encoder = EncoderRecord(
        model="bench",
        architecture_sha256=_NOTHING,
        weights_sha256=_NOTHING,
        precision="fp32",
        dim=dim,
        space=_NOTHING,
        id=_NOTHING,
    )
    preprocess = PreprocessRecord(
        size=224,
        resize_mode="shortest",
        interpolation="bicubic",
        fill_color=0,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        sha256=_NOTHING,
    )
    return BankManifest(
        id="bench",
        version=str(count),
        question=GENERATED,
        counts=counts_of(entries),
        encoder=encoder,
        preprocess=preprocess,
        views=views_record(GLOBAL_ONLY),
        checksums=dict.fromkeys(CHECKED_FILES, _NOTHING),
        created_at=MADE_AT,
        built_by=f"touchstone-worker {__version__}",
        sources=(),
    )
