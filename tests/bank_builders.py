"""
Banks, pictures and neighbourhoods for tests, from plain numbers.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.fake_encoder import FakeEncoder, fake_embedder
from worker.bank.assemble import BuildReport
from worker.bank.build import AddPlan, BuildPlan, add_to_bank, build_bank
from worker.bank.embedding import ReferenceEmbedder
from worker.bank.entries import EntryTable
from worker.bank.files import StoredBank, counts_of
from worker.bank.manifest import (
    CHECKED_FILES,
    BankManifest,
    Question,
    encoder_record,
    manifest_sha256,
    preprocess_record,
    views_record,
)
from worker.bank.manifest import GENERATED as SHIPPED_QUESTION
from worker.bank.release import Refit
from worker.bank.sources import list_source
from worker.bank.vectors import StoredVectors
from worker.domain import BankEntry, Label, Neighbour, Neighbourhood
from worker.views import ViewSpec

REAL = Label("real")
GENERATED = Label("ai_generated")
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def sha(text: str) -> str:
    """
    Any sha256.
    """
    return hashlib.sha256(text.encode()).hexdigest()


def an_entry(name: str = "one", label: str = REAL, **changes: Any) -> BankEntry:  # noqa: ANN401 - a field of any type
    """
    A reference whose id and hash come from its name.
    """
    fields = {
        "id": sha(name)[:16],
        "label": Label(label),
        "generator": None,
        "source": "tests",
        "licence": "CC0-1.0",
        "sha256": sha(name),
        "format": "PNG",
        "width": 40,
        "height": 30,
        "byte_length": 1234,
    }
    return BankEntry(**{**fields, **changes})


def unit_rows(vectors: NDArray[np.floating]) -> NDArray[np.float16]:
    """
    The rows as a bank stores them.
    """
    wide = np.asarray(vectors, dtype=np.float64)
    unit: NDArray[np.float16] = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float16)
    return unit


def some_columns(vectors: NDArray[np.floating], crops: Sequence[int] | None = None) -> StoredVectors:
    """
    Columns over these vectors (any norm): as many crops of each as ``crops`` says, near it; realism, no shift.
    """
    rng = np.random.default_rng(77)
    unit = unit_rows(vectors)
    owner = np.repeat(np.arange(len(unit), dtype=np.int32), crops if crops is not None else 0)
    near = unit[owner].astype(np.float64) + 0.1 * rng.normal(size=(len(owner), unit.shape[1]))
    return StoredVectors(
        vectors=unit,
        native=unit_rows(near),
        native_owner=owner,
        norms=rng.uniform(1, 20, len(unit)).astype(np.float32),
        realism=rng.uniform(size=(len(unit), 5)).astype(np.float32),
        shift=np.full((len(unit), 3), np.nan, dtype=np.float32),
    )


def a_stored_bank(
    vectors: Mapping[str, NDArray[np.floating]], positive: str | None = None, *, crops: Sequence[int] | None = None
) -> StoredBank:
    """
    A bank in memory with these vectors (any norm) per label, and as many crops of each as ``crops`` says.
    """
    labels = tuple(vectors)
    entries = [an_entry(f"{label}-{row}", label) for label, rows in vectors.items() for row in range(len(rows))]
    columns = some_columns(np.concatenate(list(vectors.values())), crops)
    dim = columns.vectors.shape[1]
    fingerprint = FakeEncoder().fingerprint
    manifest = BankManifest(
        id="in-memory",
        version="1",
        question=Question(labels=labels, positive=positive or labels[-1]),
        counts=counts_of(entries),
        encoder=encoder_record(fingerprint).model_copy(update={"dim": dim}),
        preprocess=preprocess_record(fingerprint),
        views=views_record(ViewSpec(native_crops=max(crops or [0]), realism=True)),
        checksums=dict.fromkeys(CHECKED_FILES, "00" * 32),
        created_at=NOON,
        built_by="tests",
        sources=(),
    )
    digest = manifest_sha256(manifest)
    return StoredBank(manifest, digest, EntryTable(entries), columns, columns.vectors[0], b"no picture")


def a_neighbourhood(
    similarities: Mapping[str, Sequence[float]], sizes: Mapping[str, int] | None = None, prefix: str = ""
) -> Neighbourhood:
    """
    Neighbours with these similarities per label (in any order); without ``sizes`` they are the whole bank.
    """
    return Neighbourhood(
        nearest={
            Label(label): tuple(
                Neighbour(an_entry(f"{prefix}{label}-{number}", label), similarity)
                for number, similarity in enumerate(sorted(found, reverse=True))
            )
            for label, found in similarities.items()
        },
        sizes={Label(label): (sizes or {}).get(label, len(found)) for label, found in similarities.items()},
    )


def a_picture(seed: int, *, size: tuple[int, int] = (48, 40), name: str = "PNG") -> bytes:
    """
    The bytes of a picture of coloured patches; another seed gives another picture.
    """
    patches = np.random.default_rng(seed).integers(0, 256, size=(5, 6, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(patches).resize(size, Image.Resampling.NEAREST).save(out, format=name)
    return out.getvalue()


def write_pictures(root: Path, *paths: str, first_seed: int = 0) -> None:
    """
    A different picture at each path below ``root``, in the format of its ending.
    """
    formats = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}
    for seed, path in enumerate(paths, start=first_seed):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(a_picture(seed, name=formats[file.suffix]))


def a_source(root: Path, reals: int = 6, fakes: int = 4) -> Path:
    """
    A folder in our layout, with fakes of one generator.
    """
    write_pictures(root, *(f"real/{number:03d}.png" for number in range(reals)))
    write_pictures(root, *(f"fake/mill/{number:03d}.png" for number in range(fakes)), first_seed=1000)
    return root


def build_small(
    source: Path,
    out: Path,
    embedder: ReferenceEmbedder | None = None,
    **plan: Any,  # noqa: ANN401 - any field
) -> BuildReport:
    """
    Build a bank of the shipped question.
    """
    fields = {"id": "small", "created_at": NOON, **plan}
    listing = list_source(source, SHIPPED_QUESTION)
    return build_bank(listing, out, embedder=embedder or fake_embedder(), plan=BuildPlan(**fields))


def add_to_small(
    bank: Path,
    source: Path,
    embedder: ReferenceEmbedder | None = None,
    *,
    refit: Refit | None = None,
    **plan: Any,  # noqa: ANN401 - any field
) -> BuildReport:
    """
    Add to a bank.
    """
    listing = list_source(source, SHIPPED_QUESTION)
    how = AddPlan(created_at=NOON, **plan)
    return add_to_bank(bank, listing, embedder=embedder or fake_embedder(), plan=how, refit=refit)


def snapshot(folder: Path) -> dict[str, bytes]:
    """
    Every file below, by name.
    """
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
