"""
The AsyncAPI 3.0 document of the contract: channels, operations and messages as they are on Kafka.

Built from plain values; payloads are referenced by file and not repeated. Source: AsyncAPI 3.0.0, Kafka bindings 0.5.0.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from schemas import SCHEMA_VERSION, bank_control, dead_letter, deleted, feedback, uploaded, verdict
from schemas.envelope import JSON, MAX_ID_CHARS, MAX_SOURCE_CHARS, SPECVERSION, STRUCTURED_JSON, schema_urn

Json = dict[str, Any]

_BINDING: Final = "0.5.0"
_UPLOADS: Final = "image-uploads"
_VERDICTS: Final = "moderation-verdicts"
_DEAD_LETTERS: Final = "moderation-dead-letters"
_SHADOW: Final = "moderation-verdicts-shadow"
_DELETIONS: Final = "image-deletions"
_FEEDBACK: Final = "image-feedback"
_BANK_CONTROL: Final = "bank-control"


def asyncapi_document(schema_file: Callable[[str], str], examples: Mapping[str, Json]) -> Json:
    """
    The whole document; ``examples`` are messages with ``headers`` and ``payload``, named ``<message>.<variant>``.
    """
    messages = _uploads({"$ref": f"./{schema_file(uploaded.TYPE)}"}) | {
        "imageVerdict": _ours(verdict.TYPE, {"$ref": f"./{schema_file(verdict.TYPE)}"}, title="Verdict"),
        "imageDeadLetter": _ours(dead_letter.TYPE, {"$ref": f"./{schema_file(dead_letter.TYPE)}"}, title="Dead letter"),
        "imageDeleted": _theirs(deleted.TYPE, schema_file, title="Deletion", key="The content_id."),
        "imageFeedback": _theirs(feedback.TYPE, schema_file, title="Feedback", key="The verdict_id."),
        "bankControl": _theirs(bank_control.TYPE, schema_file, title="Bank control", key="The bank's id."),
    }
    for name, message in messages.items():
        shown = [_example(full, example) for full, example in examples.items() if full.partition(".")[0] == name]
        if shown:
            message["examples"] = shown
    return {
        "asyncapi": "3.0.0",
        "id": "urn:touchstone:worker",
        "info": {
            "title": "Touchstone worker",
            "version": SCHEMA_VERSION,
            "description": "Reads image uploads from Kafka and answers each with exactly one verdict, or with a dead "
            "letter where the record cannot be read. Topic names are configuration; those given here are the defaults.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": JSON,
        "channels": _channels(),
        "operations": _operations(),
        "components": {"messages": messages},
    }


def _channels() -> Json:
    uploads = ("imageUploaded", "imageUploadedStructured", "imageUploadedBare")
    return {
        _UPLOADS: _channel(_UPLOADS, "Uploads, by whatever key the platform orders them.", *uploads),
        _VERDICTS: _channel(_VERDICTS, "One verdict per upload event, in the order of its key.", "imageVerdict"),
        _DEAD_LETTERS: _channel(
            _DEAD_LETTERS,
            "Records that are no upload event, and those of failed verdicts that may be mended; byte for byte.",
            "imageDeadLetter",
        ),
        _SHADOW: _channel(
            _SHADOW, "What a candidate says of a share of the uploads; `mode` is shadow.", "imageVerdict"
        ),
        _DELETIONS: _channel(_DELETIONS, "Contents that are gone; what was kept of them is forgotten.", "imageDeleted"),
        _FEEDBACK: _channel(_FEEDBACK, "What people say of verdicts, collected for review.", "imageFeedback"),
        _BANK_CONTROL: _channel(_BANK_CONTROL, "Which bank release holds.", "bankControl", cleanup="compact"),
    }


def _channel(topic: str, description: str, *messages: str, cleanup: str = "delete") -> Json:
    return {
        "address": topic,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "kafka": {
                "topic": topic,
                "topicConfiguration": {"cleanup.policy": [cleanup]},
                "bindingVersion": _BINDING,
            }
        },
    }


def _operations() -> Json:
    return {
        "readUploads": _operation("receive", _UPLOADS, "Each event is read at least once."),
        "issueVerdict": _operation("send", _VERDICTS, "Duplicates share `verdict_id`, which is also `ce_id`."),
        "issueShadowVerdict": _operation("send", _SHADOW, "Of sampled uploads; never a reason to act."),
        "readDeletions": _operation("receive", _DELETIONS, "Each is read at least once; forgetting twice is harmless."),
        "collectFeedback": _operation("receive", _FEEDBACK, "By `touchstone feedback`, into a file for review."),
        "readBankControl": _operation("receive", _BANK_CONTROL, "The newest record of a bank is what holds."),
        "keepDeadLetter": _operation("send", _DEAD_LETTERS, "`ce_id` is the same however often the record is read."),
    }


def _operation(action: str, channel: str, summary: str) -> Json:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


def _uploads(payload: Json) -> Json:
    common = {"payload": payload, "bindings": _key("Orders the uploads; by default the verdict's key, too.")}
    structured = {
        "type": "object",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {"const": SPECVERSION},
            **{name: schema for name, schema in _attributes(uploaded.TYPE).items() if name != "specversion"},
            "datacontenttype": {"type": "string"},
            "data": payload,
            "data_base64": {"type": "string", "contentEncoding": "base64", "description": "Instead of `data`."},
        },
        "oneOf": [{"required": ["data"]}, {"required": ["data_base64"]}],
    }
    return {
        "imageUploaded": {
            "name": uploaded.TYPE,
            "title": "Upload",
            "summary": "CloudEvents binary mode, the one to use.",
            "contentType": JSON,
            "headers": _headers(uploaded.TYPE, required=("specversion", "id", "source", "type")),
            **common,
        },
        "imageUploadedStructured": {
            "name": uploaded.TYPE,
            "title": "Upload, structured",
            "summary": "CloudEvents structured mode, JSON format.",
            "contentType": STRUCTURED_JSON,
            **common,
            "payload": structured,
        },
        "imageUploadedBare": {
            "name": uploaded.TYPE,
            "title": "Upload, bare",
            "summary": "JSON alone; the event's id is made from topic, partition and offset.",
            "contentType": JSON,
            **common,
        },
    }


def _ours(event_type: str, payload: Json, *, title: str) -> Json:
    return {
        "name": event_type,
        "title": title,
        "contentType": JSON,
        "headers": _headers(event_type, required=("specversion", "id", "source", "type", "time", "dataschema")),
        "payload": payload,
        "correlationId": {
            "description": "Of the upload event, or its id where it had none.",
            "location": "$message.header#/ce_correlationid",
        },
        "bindings": _key("The key of the upload event, or else its content_id; null where the record had none."),
    }


def _theirs(event_type: str, schema_file: Callable[[str], str], *, title: str, key: str) -> Json:
    return {
        "name": event_type,
        "title": title,
        "contentType": JSON,
        "headers": _headers(event_type, required=("specversion", "id", "source", "type")),
        "payload": {"$ref": f"./{schema_file(event_type)}"},
        "bindings": _key(key),
    }


def _headers(event_type: str, *, required: tuple[str, ...]) -> Json:
    attributes = {f"ce_{name}": schema for name, schema in _attributes(event_type).items()}
    trace = {
        "traceparent": {"type": "string", "description": "W3C Trace Context of this hop, carried on from the upload."},
        "tracestate": {"type": "string"},
    }
    return {
        "type": "object",
        "description": "Kafka headers; every value is UTF-8 text.",
        "required": [f"ce_{name}" for name in required],
        "properties": {**attributes, "content-type": {"type": "string", "default": JSON}, **trace},
    }


def _attributes(event_type: str) -> Json:
    ours = event_type in {verdict.TYPE, dead_letter.TYPE}
    schema: Json = {"type": "string", "format": "uri"}
    return {
        "specversion": {"type": "string", "const": SPECVERSION},
        "id": {"type": "string", "minLength": 1, "maxLength": MAX_ID_CHARS},
        "source": {"type": "string", "format": "uri-reference", "minLength": 1, "maxLength": MAX_SOURCE_CHARS},
        "type": {"type": "string", "const": event_type},
        "time": {"type": "string", "format": "date-time"},
        "subject": {"type": "string", "description": "The content_id."},
        "dataschema": {**schema, "const": schema_urn(event_type)} if ours else schema,
        "partitionkey": {"type": "string", "description": "The record's key, where it is text."},
        "correlationid": {"type": "string", "maxLength": MAX_ID_CHARS},
        "causationid": {"type": "string", "description": "The id of the upload event." if ours else "Not read."},
    } | ({"sampledrate": _SAMPLED_RATE} if event_type == verdict.TYPE else {})


_SAMPLED_RATE: Final[Json] = {
    "type": "string",
    "pattern": "^[1-9][0-9]*$",
    "description": "Of a shadow verdict: it stands for so many uploads, for the candidate judges one in so many.",
}


def _key(description: str) -> Json:
    return {"kafka": {"key": {"type": "string", "description": description}, "bindingVersion": _BINDING}}


def _example(name: str, example: Json) -> Json:
    shown = {"name": name.replace(".", "-"), "summary": example["summary"]}
    return shown | {part: example[part] for part in ("headers", "payload") if part in example}
