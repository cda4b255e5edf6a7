"""
What a build and those who embed for it on other machines say to each other: text, JSON and tensors, nothing pickled.

Both sides are written here, so that they agree; what comes back is checked as if a stranger had sent it. Who carries
the messages is ``worker.adapters.ray_embedding``.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from schemas.errors import ErrorCode
from worker import __version__
from worker.bank.embedding import EmbeddedPart, ReferenceEmbedder
from worker.bank.sources import Reference
from worker.bank.survey import Skipped, Surveyed
from worker.bank.vectors import from_tensors, shape_problems, single_rows, stacked, value_problems
from worker.bank.workshop import Embedded
from worker.decoding.device_decoder import DeviceDecoder
from worker.domain import ContentHash, Label
from worker.errors import WorkerCrashed
from worker.stages.decode import decoder_versions

_ASKED: Final = TypeAdapter(list[tuple[str, str, str, str]])
_SHORT: Final = 12


@dataclass(frozen=True, slots=True)
class Station:
    """
    What decides the numbers that somebody comes to: ours, the encoder, and the libraries that decode.
    """

    worker: str
    encoder: str
    encoder_id: str
    decoders: Mapping[str, str]

    def differences(self, other: "Station") -> str:
        """
        What is different there, both named; nothing where the two come to the same numbers.
        """
        found = []
        if self.encoder_id != other.encoder_id:
            mine, theirs = self._encoder_said(), other._encoder_said()  # noqa: SLF001 - of the same class
            found.append(f"encoder {theirs}, here {mine}")
        if self.worker != other.worker:
            found.append(f"touchstone-worker {other.worker}, here {self.worker}")
        names = sorted({*self.decoders, *other.decoders})
        found += [
            f"{name} {other.decoders.get(name)}, here {self.decoders.get(name)}"
            for name in names
            if other.decoders.get(name) != self.decoders.get(name)
        ]
        return "; ".join(found)

    def _encoder_said(self) -> str:
        return f"{self.encoder} ({self.encoder_id[:_SHORT]})"


def station_of(embedder: ReferenceEmbedder) -> Station:
    """
    Of this process with this embedder.
    """
    fingerprint = embedder.encoder.fingerprint
    encoder = f"{fingerprint.model} in {fingerprint.precision}"
    decoders = decoder_versions(fingerprint.preprocess)
    if isinstance(embedder.decoder, DeviceDecoder):
        decoders["device_jpegs"] = embedder.decoder.version
    return Station(__version__, encoder, fingerprint.id, decoders)


def asked_text(references: Sequence[Surveyed]) -> str:
    """
    References to be embedded: name, path, label and hash of each, and none of their bytes. ASCII, whatever the names.
    """
    known = [(one.reference, one.content_hash) for one in references]
    return json.dumps([[one.name, os.fspath(one.path.absolute()), one.label, content] for one, content in known])


def read_asked(text: str) -> list[Surveyed]:
    """
    The references that were asked for. Raises ``ValueError`` for a text that ``asked_text`` did not write.
    """
    # Not pydantic's own parser: a name that is no UTF-8 has lone surrogates, which that refuses.
    rows = _ASKED.validate_python([tuple(row) for row in json.loads(text)], strict=True)
    return [
        Surveyed(Reference(Path(path), name, Label(label)), ContentHash(content_hash))
        for name, path, label, content_hash in rows
    ]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class _Record(_Strict):
    content_hash: str
    format: str | None
    width: int | None
    height: int | None
    byte_length: int


class _Unusable(_Strict):
    name: str
    code: str
    detail: str


class _Facts(_Strict):
    encoder_id: str
    records: list[_Record]
    skipped: list[_Unusable]


@dataclass(frozen=True, slots=True)
class Answer:
    """
    One embedded part as it travels: what was found as JSON, and what was measured as safetensors.
    """

    facts: str = field(repr=False)
    tensors: bytes = field(repr=False)


def answer_of(part: EmbeddedPart, embedder: ReferenceEmbedder) -> Answer:
    """
    A part, to be sent back to who asked for it.
    """
    fingerprint = embedder.encoder.fingerprint
    columns = stacked([one.measured for one in part.finished.values()], fingerprint.dim)
    facts = {
        "encoder_id": fingerprint.id,
        "records": [
            {
                "content_hash": content_hash,
                "format": one.format,
                "width": one.width,
                "height": one.height,
                "byte_length": one.byte_length,
            }
            for content_hash, one in part.finished.items()
        ],
        "skipped": [{"name": one.name, "code": one.code.value, "detail": one.detail} for one in part.skipped],
    }
    return Answer(json.dumps(facts), save(columns.tensors()))


def read_answer(answer: Answer, asked: Sequence[Surveyed], embedder: ReferenceEmbedder) -> EmbeddedPart:
    """
    The part that an answer holds, once all of it was checked against what was asked.

    Raises ``WorkerCrashed`` for anything else than one result for each reference, as this embedder would give it.
    """
    try:
        facts = _Facts.model_validate(json.loads(answer.facts))
        finished = _finished(answer.tensors, facts, embedder)
        skipped = tuple(Skipped(one.name, ErrorCode(one.code), one.detail) for one in facts.skipped)
        _check_complete(finished, skipped, asked)
    except (ValidationError, ValueError, KeyError, SafetensorError) as fault:
        raise WorkerCrashed(
            f"an actor's answer for {asked[0].reference.name} and those after it is not usable: {_said(fault)}. Run "
            "the same touchstone-worker on every node; what was embedded is kept, and the same command goes on there"
        ) from fault
    return EmbeddedPart(len(asked), finished, skipped)


def _finished(tensors: bytes, facts: _Facts, embedder: ReferenceEmbedder) -> dict[ContentHash, Embedded]:
    fingerprint = embedder.encoder.fingerprint
    if facts.encoder_id != fingerprint.id:
        raise ValueError(f"it was made by encoder {facts.encoder_id}, expected {fingerprint.id}")
    columns = load(tensors)
    if problems := shape_problems(columns, len(facts.records), fingerprint.dim):
        raise ValueError("; ".join(problems))
    stored = from_tensors(columns)
    if problems := list(value_problems(stored, embedder.views)):
        raise ValueError("; ".join(problems))
    return {
        ContentHash(record.content_hash): Embedded(
            measured, record.format, record.width, record.height, record.byte_length
        )
        for measured, record in zip(single_rows(stored), facts.records, strict=True)
    }


def _said(fault: Exception) -> str:
    if not isinstance(fault, ValidationError):
        return str(fault)
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in fault.errors(include_url=False))


def _check_complete(
    finished: Mapping[ContentHash, Embedded], skipped: Sequence[Skipped], asked: Sequence[Surveyed]
) -> None:
    left_out = {one.name for one in skipped}
    expected = {one.content_hash for one in asked if one.reference.name not in left_out}
    if set(finished) != expected or len(finished) + len(skipped) != len(asked):
        raise ValueError(
            f"it has {len(finished)} embeddings and {len(skipped)} references left out, for other references than the "
            f"{len(asked)} that were asked for"
        )
