"""
The canaries of a release: pictures whose right answer is known, as the encoder saw them, beside the bank's own files.

``canaries.json`` names each with its expected label and the facts of its file, and the sha256 of
``canaries.safetensors``, which holds what was measured in the columns of ``worker.bank.vectors``. ``canaries.sha256``
vouches for the first until the pointer of a place does. Judging them is ``worker/operation/canaries.py``.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from schemas.verdict import ImageFacts
from schemas.wire import Sha256
from worker.bank.embedding import ReferenceEmbedder
from worker.bank.manifest import CANARIES, CANARIES_SUM, CANARY_FILES, CANARY_VECTORS, BankManifest, Name
from worker.bank.manifest_checks import MAX_CANARIES_BYTES
from worker.bank.regular_files import FileRefused, read_whole, sum_line, sum_problem
from worker.bank.sources import Listing, Reference
from worker.bank.survey import Progress, no_progress
from worker.bank.vectors import (
    Measured,
    from_tensors,
    not_measured,
    shape_problems,
    single_rows,
    stacked,
    value_problems,
)
from worker.domain import ContentHash, Embedding, Label, Sighting
from worker.errors import BankInvalid, UploadFailed
from worker.heads.features import REALISM, SHIFT
from worker.stages.embed import sighting_of
from worker.stages.perturb import perturbed_copies, shift_of


@dataclass(frozen=True, slots=True)
class Canary:
    """
    One picture as the encoder saw it, and the label that must be decided for it.
    """

    name: str
    expected: Label
    sighting: Sighting = field(repr=False)


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    expected: Name
    facts: ImageFacts


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    space: Sha256
    views: Sha256
    vectors_sha256: Sha256
    canaries: Annotated[tuple[_Line, ...], Field(min_length=1)]


def embed_canaries(
    listing: Listing, embedder: ReferenceEmbedder, progress: Progress = no_progress
) -> tuple[Canary, ...]:
    """
    The pictures of a listing through the encoder, in order. Blocks; raises ``BankInvalid`` for one that cannot be used.

    The shift is measured wherever the bank's views have one: whether a judge would ask for it is not known yet.
    """
    found = []
    for number, reference in enumerate(listing.references):
        progress("canaries", number, len(listing.references))
        found.append(_embedded(reference, embedder))
    progress("canaries", len(found), len(found))
    return tuple(found)


def write_canaries(folder: Path, canaries: Sequence[Canary], manifest: BankManifest) -> dict[str, Path]:
    """
    Write the files into an existing directory; returns where they are, by name.
    """
    rows = [_measured(canary.sighting) for canary in canaries]
    data = save(stacked(rows, manifest.encoder.dim).tensors())
    file = _File(
        space=manifest.encoder.space,
        views=manifest.views.sha256,
        vectors_sha256=hashlib.sha256(data).hexdigest(),
        canaries=tuple(_Line(name=one.name, expected=one.expected, facts=one.sighting.facts) for one in canaries),
    )
    (folder / CANARY_VECTORS).write_bytes(data)
    listed = (json.dumps(file.model_dump(mode="json"), sort_keys=True, indent=2) + "\n").encode()
    (folder / CANARIES).write_bytes(listed)
    (folder / CANARIES_SUM).write_bytes(sum_line(CANARIES, listed))
    return {name: folder / name for name in CANARY_FILES}


def read_canaries(folder: Path, manifest: BankManifest, *, activated: str | None = None) -> tuple[Canary, ...]:
    """
    The canaries of a release, checked; none where it has none. Raises ``BankInvalid``.

    ``activated`` is the sha256 of the ones that were activated: with it others are refused, and so are none.
    """
    if activated is None and not has_canaries(folder):
        return ()
    listed, data, said = (_read(folder, name) for name in (CANARIES, CANARY_VECTORS, CANARIES_SUM))
    if activated is not None and (read := hashlib.sha256(listed).hexdigest()) != activated:
        raise BankInvalid(
            f"release {folder.name}: {CANARIES} has sha256 {read}, {activated} was activated: it was replaced; publish "
            "the bank again under another name and activate that"
        )
    file = _listed(folder, listed, said)
    if (found := hashlib.sha256(data).hexdigest()) != file.vectors_sha256:
        raise BankInvalid(
            f"release {folder.name}: {CANARY_VECTORS} has sha256 {found}, {CANARIES} names {file.vectors_sha256}; "
            "publish it again"
        )
    try:
        tensors = load(data)
    except SafetensorError as fault:
        raise BankInvalid(
            f"release {folder.name}: {CANARY_VECTORS} cannot be read ({fault}); publish it again"
        ) from fault
    problems = []
    if (file.space, file.views) != (manifest.encoder.space, manifest.views.sha256):
        problems.append(f"{CANARIES} is of another encoder or other views than the bank")
    problems += shape_problems(tensors, len(file.canaries), manifest.encoder.dim)
    if not problems:
        problems += value_problems(from_tensors(tensors), manifest.views.spec())
    if strangers := sorted({one.expected for one in file.canaries} - set(manifest.question.labels)):
        problems.append(f"{CANARIES} expects {', '.join(strangers)}, which the bank does not decide")
    if problems:
        raise BankInvalid(f"release {folder.name}: {'; '.join(problems)}; publish it again")
    return tuple(
        Canary(line.name, Label(line.expected), _sighting(row, line.facts))
        for line, row in zip(file.canaries, single_rows(from_tensors(tensors)), strict=True)
    )


def has_canaries(folder: Path) -> bool:
    """
    Whether canaries lie in the directory of a bank, or some of their files.
    """
    return any((folder / name).exists() for name in CANARY_FILES)


def activated_canaries(folder: Path, manifest: BankManifest, activated: str | None) -> tuple[Canary, ...]:
    """
    The canaries that were activated with a release, None where it was without, whatever lies there since.
    """
    return () if activated is None else read_canaries(folder, manifest, activated=activated)


def _listed(folder: Path, listed: bytes, said: bytes) -> _File:
    if problem := sum_problem(CANARIES, listed, said):
        raise BankInvalid(f"release {folder.name}: {problem}")
    try:
        return _File.model_validate_json(listed)
    except ValidationError as fault:
        raise BankInvalid(f"release {folder.name}: {CANARIES} cannot be read ({fault}); publish it again") from fault


def _read(folder: Path, name: str) -> bytes:
    try:
        return read_whole(folder / name, most_bytes=MAX_CANARIES_BYTES)
    except FileRefused as fault:
        raise BankInvalid(f"release {folder.name}: {name} {fault}; publish it again") from fault


def _embedded(reference: Reference, embedder: ReferenceEmbedder) -> Canary:
    try:
        data = reference.path.read_bytes()
        picture = embedder.decoder.decode(data, ContentHash(hashlib.sha256(data).hexdigest()))
        copies = perturbed_copies(picture.pixels) if embedder.views.perturbation else ()
        pixels = [picture.pixels, *picture.native, *copies]
        parts = [
            embedder.encoder.encode(pixels[start : start + embedder.batch_size])
            for start in range(0, len(pixels), embedder.batch_size)
        ]
        features = np.concatenate(parts)
        seen = 1 + len(picture.native)
        sighting = sighting_of(picture, features[:seen])
        shift = shift_of(features[0], features[seen:]) if copies else None
    except (OSError, UploadFailed, ValueError) as fault:
        raise BankInvalid(
            f"canary {reference.name} cannot be used ({fault}); leave it out, or mend the file"
        ) from fault
    measured = Sighting(
        sighting.embedding,
        sighting.facts,
        sighting.norm,
        sighting.native,
        sighting.realism,
        None if shift is None else tuple(shift),
    )
    return Canary(reference.name, reference.label, measured)


def _measured(sighting: Sighting) -> Measured:
    dim = len(sighting.embedding.vector)
    native = [crop.as_half()[None] for crop in sighting.native]
    realism = not_measured(len(REALISM)) if sighting.realism is None else sighting.realism
    shift = not_measured(len(SHIFT)) if sighting.shift is None else sighting.shift
    return Measured(
        vector=sighting.embedding.as_half(),
        native=np.concatenate([np.empty((0, dim), np.float16), *native]),
        norm=sighting.norm,
        realism=np.asarray(realism, dtype=np.float32),
        shift=np.asarray(shift, dtype=np.float32),
    )


def _sighting(row: Measured, facts: ImageFacts) -> Sighting:
    return Sighting(
        embedding=Embedding.from_half(row.vector),
        facts=facts,
        norm=row.norm,
        native=tuple(Embedding.from_half(crop) for crop in row.native),
        realism=None if np.isnan(row.realism).any() else tuple(float(number) for number in row.realism),
        shift=None if np.isnan(row.shift).any() else tuple(float(number) for number in row.shift),
    )
