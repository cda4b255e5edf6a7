"""
The contract for those who do not read Python: JSON Schemas (2020-12) and, around them, an AsyncAPI document.

Everything is generated from the models and from ``schemas/examples``, and is the same bytes on every machine. The files
are committed in ``schemas/json``; ``drift`` says where they no longer say what the models say.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from schemas import bank_control, dead_letter, deleted, feedback, uploaded, verdict
from schemas.asyncapi import asyncapi_document
from schemas.bank_control import BankControlV1
from schemas.dead_letter import ImageDeadLetterV1
from schemas.deleted import ImageDeletedV1
from schemas.envelope import schema_urn
from schemas.feedback import ImageFeedbackV1
from schemas.uploaded import ImageUploadedV1
from schemas.verdict import ImageVerdictV1

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
ASYNCAPI_FILE: Final = "asyncapi.json"
COMMITTED: Final = Path(__file__).parent / "json"


@dataclass(frozen=True, slots=True)
class Drift:
    """
    One file that does not say what the models say.
    """

    file: str
    problem: Literal["missing", "differs", "unknown"]


@dataclass(frozen=True, slots=True)
class _Event:
    name: str
    model: type[BaseModel]
    mode: Literal["validation", "serialization"]
    title: str


# What we read is described as we read it, what we write as we write it, so that a validator accepts what we emit.
_EVENTS: Final = (
    _Event(uploaded.TYPE, ImageUploadedV1, "validation", "An image was uploaded"),
    _Event(verdict.TYPE, ImageVerdictV1, "serialization", "The verdict on an uploaded image"),
    _Event(dead_letter.TYPE, ImageDeadLetterV1, "serialization", "A record that came to no judgement"),
    _Event(deleted.TYPE, ImageDeletedV1, "validation", "A content is gone"),
    _Event(feedback.TYPE, ImageFeedbackV1, "validation", "What a person says of a verdict"),
    _Event(bank_control.TYPE, BankControlV1, "validation", "Which bank release holds"),
)


def schema_file(event_type: str) -> str:
    """
    The name of the file that holds an event's schema.
    """
    return f"{event_type}.schema.json"


def json_schema(event_type: str) -> dict[str, Any]:
    """
    The JSON Schema of an event's data. Raises ``KeyError`` for a type that is not ours.
    """
    event = {event.name: event for event in _EVENTS}[event_type]
    generated = event.model.model_json_schema(mode=event.mode, schema_generator=_ContractSchema)
    head = {"$schema": DIALECT, "$id": schema_urn(event_type), "title": event.title}
    return {**head, "description": generated["description"], **{k: v for k, v in generated.items() if k != "title"}}


def exported() -> dict[str, bytes]:
    """
    The content of every generated file, by its name.
    """
    documents: dict[str, Mapping[str, Any]] = {schema_file(event.name): json_schema(event.name) for event in _EVENTS}
    documents[ASYNCAPI_FILE] = asyncapi_document(schema_file, examples())
    return {name: _bytes(document) for name, document in documents.items()}


def examples() -> dict[str, dict[str, Any]]:
    """
    The example messages that ship with the contract, by name: ``headers`` and ``payload`` of each.
    """
    folder = resources.files("schemas") / "examples"
    found = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".json")), key=lambda entry: entry.name)
    return {entry.name.removesuffix(".json"): json.loads(entry.read_text(encoding="utf-8")) for entry in found}


def drift(folder: Path) -> tuple[Drift, ...]:
    """
    The files of ``folder`` that differ from what would be exported, that are missing, or that nobody exports.
    """
    wanted = exported()
    found = {path.name: path.read_bytes() for path in sorted(folder.glob("*.json"))}
    missing = [Drift(name, "missing") for name in wanted if name not in found]
    differing = [Drift(name, "differs") for name, content in wanted.items() if found.get(name, content) != content]
    unknown = [Drift(name, "unknown") for name in found if name not in wanted]
    return (*missing, *differing, *unknown)


def export_to(folder: Path) -> tuple[Path, ...]:
    """
    Write every generated file into ``folder``, which is made where it is missing; the paths written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in exported().items():
        path = folder / name
        path.write_bytes(content)
        written.append(path)
    return tuple(written)


class _ContractSchema(GenerateJsonSchema):
    """
    JSON Schema as consumers need it: open to fields and to values of enumerations that a later minor version adds.
    """

    def generate(
        self, schema: core_schema.CoreSchema, mode: Literal["validation", "serialization"] = "validation"
    ) -> JsonSchemaValue:
        """
        The schema without what would close it.
        """
        opened: JsonSchemaValue = _opened(super().generate(schema, mode=mode))
        return opened

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002 - pydantic's signature
        """
        Never: a title that repeats the field's name tells nobody anything.
        """
        return False

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        """
        The known values, and any other text: consumers treat what they do not know as information.
        """
        members: list[Enum] = schema["members"]
        known = {"type": "string", "enum": [member.value for member in members]}
        return {
            "title": schema["cls"].__name__,
            "description": _plain((schema["cls"].__doc__ or "").strip()),
            # Any text is valid, and the known values are still there for people and for code generators.
            "anyOf": [known, {"type": "string"}],
        }


def _opened(node: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(node, list):
        return [_opened(part) for part in node]
    if not isinstance(node, dict):
        return node
    opened = {}
    for name, part in node.items():
        if name == "discriminator" or (name == "additionalProperties" and part is False):
            continue  # the first is OpenAPI's and says nothing that oneOf does not; the second would close the contract
        opened[name] = _plain(part) if name == "description" and isinstance(part, str) else _opened(part)
    return opened


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _bytes(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
