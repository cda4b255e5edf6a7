"""
The manifest of a bank directory: what the bank asks, what it holds, and which encoder made it.

Models and their canonical form only; reading and writing directories is ``worker.bank.files``.
"""

import hashlib
import json
import re
from dataclasses import asdict
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from schemas.wire import Sha256
from worker.domain import EncoderFingerprint
from worker.errors import ConfigInvalid
from worker.views import ViewSpec

FORMAT_VERSION: Final = 2
MANIFEST: Final = "manifest.json"
VECTORS: Final = "vectors.safetensors"
ENTRIES: Final = "entries.jsonl"
PROBE: Final = "probe.png"
CHECKED_FILES: Final = (VECTORS, ENTRIES, PROBE)
"""Every file that each bank has beside the manifest; their sha256 are in it."""

MANIFEST_SUM: Final = "manifest.sha256"
"""What ``sha256sum manifest.json`` prints: the manifest vouches for every other file, and this for the manifest."""

SIGNATURE: Final = "manifest.sig"
"""Signatures over the manifest, where there are any; see ``worker.bank.signature``."""

JUDGEMENT: Final = "judgement.json"
HEADS: Final = "heads.safetensors"
JUDGEMENT_FILES: Final = (JUDGEMENT, HEADS)
"""The further files of a bank with a fitted judgement; what is in them is ``worker.judgement``'s affair."""

SEARCH: Final = "search.safetensors"
"""The further file of a bank with an approximate index; what is in it is in ``worker.bank.search_cells``."""

CANARIES: Final = "canaries.json"
CANARY_VECTORS: Final = "canaries.safetensors"
CANARIES_SUM: Final = "canaries.sha256"
CANARY_FILES: Final = (CANARIES, CANARY_VECTORS, CANARIES_SUM)
"""The further files of a release with canaries; what is in them is in ``worker.bank.canary_files``."""

NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Count = Annotated[int, Field(ge=0)]

MIN_SEARCH_QUALITY: Final = 0.995
"""Of an approximate index: recall against exact search, and the share of equal decisions."""

MAX_ENTRIES: Final = 100_000_000
MAX_DIM: Final = 65_536
MAX_NATIVE_CROPS: Final = 1_024
"""Beyond these a manifest is refused, before anything is made room for."""


class Part(BaseModel):
    """
    A frozen part of the manifest; an unknown key is an error, for it would not be understood.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class Question(Part):
    """
    What the bank is asked: its labels, and the one that a verdict's ``score`` speaks of.
    """

    labels: tuple[Name, ...] = Field(min_length=2)
    positive: Name

    @model_validator(mode="after")
    def _labels_are_a_set_with_the_positive(self) -> Self:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels {', '.join(self.labels)} must differ from each other")
        if self.positive not in self.labels:
            raise ValueError(f"positive is {self.positive!r}, expected one of {', '.join(self.labels)}")
        return self


GENERATED: Final = Question(labels=("real", "ai_generated"), positive="ai_generated")
"""The question that Touchstone ships."""


class Counts(Part):
    """
    How many references there are, per label, and per label and named generator.
    """

    entries: Annotated[int, Field(ge=1, le=MAX_ENTRIES)]
    per_label: dict[Name, Annotated[int, Field(ge=1)]]
    per_generator: dict[Name, dict[str, Annotated[int, Field(ge=1)]]]

    @model_validator(mode="after")
    def _sums_agree(self) -> Self:
        if sum(self.per_label.values()) != self.entries:
            raise ValueError(f"per_label sums to {sum(self.per_label.values())}, expected entries = {self.entries}")
        return self


class EncoderRecord(Part):
    """
    The encoder that made the vectors; see ``worker.domain.EncoderFingerprint``.
    """

    model: str
    architecture_sha256: Sha256
    weights_sha256: Sha256
    precision: str
    dim: Annotated[int, Field(ge=1, le=MAX_DIM)]
    space: Sha256
    id: Sha256


class PreprocessRecord(Part):
    """
    How a picture became the encoder's input; see ``worker.domain.PreprocessSpec``.
    """

    size: Annotated[int, Field(ge=1)]
    resize_mode: Literal["shortest", "longest", "squash"]
    interpolation: Literal["bicubic", "bilinear"]
    fill_color: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    sha256: Sha256


class ViewsRecord(Part):
    """
    What was looked at of every reference, and is to be looked at of every upload; see ``worker.views.ViewSpec``.
    """

    native_crops: Annotated[int, Field(ge=0, le=MAX_NATIVE_CROPS)]
    realism: bool
    perturbation: bool
    max_side_px: Annotated[int, Field(ge=1)] | None
    reencode_quality: Annotated[int, Field(ge=1, le=100)] | None
    sha256: Sha256

    def spec(self) -> ViewSpec:
        """
        The views as the decoder and the embedder take them.
        """
        return ViewSpec(**self.model_dump(exclude={"sha256"}))


class JudgementRecord(Part):
    """
    The fitted judgement of this release: who it is, and the sha256 of each of its files.
    """

    id: Sha256
    version: Name
    files: dict[str, Sha256]

    @model_validator(mode="after")
    def _files_are_those_of_a_judgement(self) -> Self:
        if set(self.files) != set(JUDGEMENT_FILES):
            raise ValueError(f"files are {', '.join(self.files)}, expected {', '.join(JUDGEMENT_FILES)}")
        return self


class SearchRecord(Part):
    """
    The approximate index that a release carries: its shape, how deep it is searched, and how well it was found to do.

    ``recall`` is of the ``depth`` nearest of the worst label, ``agreement`` the share decided as over all vectors: of
    ``queries``, half of them references and half unlike any, the figure of the worse half. Below 0.995 none is loaded.
    """

    cells: dict[Name, Annotated[int, Field(ge=1, le=65_536)]]
    probes: Annotated[int, Field(ge=1)]
    pool: Annotated[int, Field(ge=1)]
    recall: Annotated[float, Field(ge=MIN_SEARCH_QUALITY, le=1)]
    agreement: Annotated[float, Field(ge=MIN_SEARCH_QUALITY, le=1)]
    depth: Annotated[int, Field(ge=1)]
    queries: Annotated[int, Field(ge=1)]
    built_with: str
    files: dict[str, Sha256]

    @model_validator(mode="after")
    def _files_are_those_of_an_index(self) -> Self:
        if set(self.files) != {SEARCH}:
            raise ValueError(f"files are {', '.join(self.files)}, expected {SEARCH}")
        return self


class SourceRecord(Part):
    """
    One listing that references came from; ``encoder_id`` tells the precision that embedded them.
    """

    kind: Literal["folder", "csv", "files"]
    name: str
    listed: Count
    added: Count
    duplicates: Count
    skipped: Count
    encoder_id: Sha256
    added_at: AwareDatetime


class BankManifest(Part):
    """
    Everything about a bank but its vectors and entries.
    """

    format_version: Literal[2] = FORMAT_VERSION
    id: Name
    version: Name
    question: Question
    counts: Counts
    encoder: EncoderRecord
    preprocess: PreprocessRecord
    views: ViewsRecord
    judgement: JudgementRecord | None = None
    search: SearchRecord | None = None
    checksums: dict[str, Sha256]
    created_at: AwareDatetime
    built_by: str
    sources: tuple[SourceRecord, ...]

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if set(self.counts.per_label) != set(self.question.labels):
            raise ValueError(
                f"counts.per_label has {', '.join(self.counts.per_label)}, expected {', '.join(self.question.labels)}"
            )
        if not set(self.counts.per_generator) <= set(self.question.labels):
            raise ValueError(f"counts.per_generator has labels other than {', '.join(self.question.labels)}")
        if set(self.checksums) != set(CHECKED_FILES):
            raise ValueError(f"checksums cover {', '.join(self.checksums)}, expected {', '.join(CHECKED_FILES)}")
        if self.search is not None and set(self.search.cells) != set(self.question.labels):
            raise ValueError(
                f"search.cells has {', '.join(self.search.cells)}, expected {', '.join(self.question.labels)}"
            )
        return self

    @property
    def file_checksums(self) -> dict[str, str]:
        """
        Every file beside the manifest and its sha256, those of the judgement and of the index included.
        """
        judgement = self.judgement.files if self.judgement is not None else {}
        return {**self.checksums, **judgement, **(self.search.files if self.search is not None else {})}


def check_name(what: str, name: str) -> None:
    """
    Refuse an id or version that no manifest could carry, before any work. Raises ``ConfigInvalid``.
    """
    if re.fullmatch(NAME_PATTERN, name) is None:
        raise ConfigInvalid(
            f"{what} is {name!r}; expected at most 64 letters, digits, dots, dashes and underscores, "
            "a letter or digit first"
        )


def canonical_bytes(manifest: BankManifest) -> bytes:
    """
    The manifest as it is written: JSON with sorted keys, so that ``sha256sum manifest.json`` prints its hash.
    """
    value = manifest.model_dump(mode="json")
    if manifest.search is None:
        # Banks without an index are as they were before there was any: byte for byte, so that their hashes stay.
        del value["search"]
    return (json.dumps(value, sort_keys=True, indent=2) + "\n").encode()


def manifest_sha256(manifest: BankManifest) -> str:
    """
    The hash that names this bank in every verdict: over the canonical bytes, so not over the file's white space.
    """
    return hashlib.sha256(canonical_bytes(manifest)).hexdigest()


def encoder_record(fingerprint: EncoderFingerprint) -> EncoderRecord:
    """
    What the manifest keeps of an encoder.
    """
    return EncoderRecord(
        model=fingerprint.model,
        architecture_sha256=fingerprint.architecture_sha256,
        weights_sha256=fingerprint.weights_sha256,
        precision=fingerprint.precision,
        dim=fingerprint.dim,
        space=fingerprint.space,
        id=fingerprint.id,
    )


def preprocess_record(fingerprint: EncoderFingerprint) -> PreprocessRecord:
    """
    What the manifest keeps of an encoder's preprocessing.
    """
    spec = fingerprint.preprocess
    return PreprocessRecord(
        size=spec.size,
        resize_mode=spec.resize_mode,
        interpolation=spec.interpolation,
        fill_color=spec.fill_color,
        mean=spec.mean,
        std=spec.std,
        sha256=spec.sha256,
    )


def views_record(views: ViewSpec) -> ViewsRecord:
    """
    What the manifest keeps of the views.
    """
    return ViewsRecord(**asdict(views), sha256=views.sha256)
