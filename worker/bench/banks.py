"""
Banks of any size for benchmarks: directions drawn from a seed, in a bank directory like any other.

Their references are no pictures: a search costs what it costs with real ones, and verdicts mean nothing.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from worker import __version__
from worker.bank.files import counts_of, write_contents, write_manifest
from worker.bank.fit import embed_probe, probe_picture
from worker.bank.manifest import GENERATED, MANIFEST, BankManifest, encoder_record, preprocess_record, views_record
from worker.bank.vectors import Half, StoredVectors
from worker.domain import BankEntry, Label
from worker.heads.features import REALISM, SHIFT
from worker.ports import Encoder, PictureDecoder
from worker.views import GLOBAL_ONLY

SEED: Final = 7
MADE_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_ROWS_AT_ONCE: Final = 65_536


def write_random_bank(folder: Path, count: int, *, encoder: Encoder, decoder: PictureDecoder) -> Path:
    """
    A bank of so many references (at least 2) of both labels, its probe embedded by this encoder; returns its directory.

    The one that lies in ``folder`` already is taken where its encoder and its size are those that are asked for.
    """
    fingerprint = encoder.fingerprint
    path = folder / f"bank-{count}-{fingerprint.id[:12]}"
    if (path / MANIFEST).exists():
        return path
    path.mkdir(parents=True, exist_ok=True)
    png = probe_picture()
    probe = embed_probe(png, encoder, decoder).as_half()
    entries = list(_entries(count))
    stored = columns_of(random_directions(count, fingerprint.dim))
    checksums = write_contents(path, entries, stored=stored, probe=probe, probe_png=png)
    manifest = BankManifest(
        id="bench",
        version=str(count),
        question=GENERATED,
        counts=counts_of(entries),
        encoder=encoder_record(fingerprint),
        preprocess=preprocess_record(fingerprint),
        views=views_record(GLOBAL_ONLY),
        checksums=checksums,
        created_at=MADE_AT,
        built_by=f"touchstone-worker {__version__}",
        sources=(),
    )
    write_manifest(path, manifest)
    return path


def random_directions(count: int, dim: int, *, seed: int = SEED) -> Half:
    """
    So many unit vectors, float16[count, dim], drawn piece by piece: a million in double precision would not fit.
    """
    rng = np.random.default_rng(seed)
    rows = np.empty((count, dim), dtype=np.float16)
    for start in range(0, count, _ROWS_AT_ONCE):
        piece = rng.standard_normal((min(_ROWS_AT_ONCE, count - start), dim), dtype=np.float32)
        piece /= np.linalg.norm(piece, axis=1, keepdims=True)
        rows[start : start + len(piece)] = piece
    return rows


def columns_of(vectors: Half) -> StoredVectors:
    """
    The columns of a bank of these directions whose references have no other views.
    """
    count, dim = vectors.shape
    return StoredVectors(
        vectors=vectors,
        native=np.empty((0, dim), dtype=np.float16),
        native_owner=np.empty(0, dtype=np.int32),
        norms=np.ones(count, dtype=np.float32),
        realism=np.full((count, len(REALISM)), np.nan, dtype=np.float32),
        shift=np.full((count, len(SHIFT)), np.nan, dtype=np.float32),
    )


def _entries(count: int) -> Iterator[BankEntry]:
    for number in range(count):
        digest = hashlib.sha256(f"bench {number}".encode()).hexdigest()
        generated = number % 2 == 1
        yield BankEntry(
            id=digest[:16],
            label=Label(GENERATED.labels[number % 2]),
            generator=f"generator-{number % 10}" if generated else None,
            source="bench",
            licence=None,
            sha256=digest,
            format="JPEG",
            width=1152,
            height=864,
            byte_length=150_000,
        )
