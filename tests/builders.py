"""
Values for tests, each valid and each the same every time; a test changes only what it is about.

Ids, times and hashes are fixed, because the golden events are made from them.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from schemas.envelope import EventAttributes, Trace, write_binary
from schemas.uploaded import TYPE, ImageUploadedV1
from schemas.verdict import (
    Action,
    Evidence,
    ImageFacts,
    LabelEvidence,
    NeighbourV1,
    Reason,
    ReasonCode,
    ScoreComponent,
    Thresholds,
)
from worker.domain import (
    BankIdentity,
    EncoderFingerprint,
    Judgement,
    Label,
    Partition,
    PreprocessSpec,
    Provenance,
    RawEvent,
    Upload,
)
from worker.stages.intake import read_event
from worker.stages.report import FailureRuling, Handled, PolicyIdentity, RunVersions

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
NOON_S = NOON.timestamp()
IMAGE_SHA256 = "9f" * 32
MAX_EVENT_BYTES = 1_048_576
TRACE: Trace = (("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),)
REFS: Mapping[str, Mapping[str, Any]] = {
    "https": {"kind": "https", "url": "https://cdn.example/u/8843/original.jpg?signature=0123456789abcdef"},
    "s3": {"kind": "s3", "bucket": "uploads", "key": "8843/original.jpg", "version_id": "3", "profile": "media"},
    "file": {"kind": "file", "path": "8843/original.jpg"},
    "inline": {
        "kind": "inline",
        "base64": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC",
    },
}


def upload_data(kind: str = "https", **changes: object) -> dict[str, Any]:
    """
    The data of an upload event, as a producer writes it.
    """
    return {
        "content_id": "post-8843",
        "revision": 2,
        "tenant_id": "acme",
        "image": {"ref": dict(REFS[kind]), "byte_length": 83211, "media_type": "image/jpeg"},
        "declared": {"ai_disclosed": False},
        "context": {"surface": "post", "created_at": "2026-11-22T11:58:00Z"},
        "attributes": {"post": "8843"},
        **changes,
    }


def upload_attributes(**changes: Any) -> EventAttributes:  # noqa: ANN401 - a field of any type may be changed
    """
    The CloudEvents attributes of an upload event.
    """
    fields = {
        "id": "01J9Z5-upload-8843",
        "source": "https://platform.example/uploads",
        "type": TYPE,
        "time": datetime(2026, 11, 22, 11, 59, 59, tzinfo=UTC),
        "subject": "post-8843",
        "correlation_id": "request-17",
    }
    return EventAttributes(**{**fields, **changes})


def a_raw_event(
    value: bytes | Mapping[str, object] | None = None,
    *,
    envelope: str = "binary",
    **changes: Any,  # noqa: ANN401 - a field of any type may be changed
) -> RawEvent:
    """
    A record of the upload topic; ``value`` is its data (by default that of an upload), ``changes`` its other fields.
    """
    data = upload_data() if value is None else value
    headers: tuple[tuple[str, bytes | None], ...] = ()
    if envelope == "binary":
        headers = write_binary(upload_attributes(), TRACE)
    elif envelope == "structured":
        headers = (("content-type", b"application/cloudevents+json; charset=UTF-8"), *TRACE)
        data = data if isinstance(data, bytes) else structured(data)
    fields = {
        "partition": Partition("image-uploads", 3),
        "offset": 991,
        "key": b"acme|post-8843",
        "value": data if isinstance(data, bytes) else as_json(data),
        "headers": headers,
        "timestamp_ms": int(NOON_S * 1000) - 400,
        "received_at_s": NOON_S - 0.25,
    }
    return RawEvent(**{**fields, **changes})


def structured(data: Mapping[str, object], **changes: object) -> dict[str, Any]:
    """
    An upload event in the CloudEvents JSON format.
    """
    return {
        "specversion": "1.0",
        "id": "01J9Z5-upload-8843",
        "source": "https://platform.example/uploads",
        "type": TYPE,
        "time": "2026-11-22T11:59:59Z",
        "datacontenttype": "application/json",
        "data": data,
        **changes,
    }


def as_json(document: object) -> bytes:
    """
    A document as compact JSON.
    """
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def an_upload(kind: str = "https", **changes: object) -> Upload:
    """
    A readable upload event with a reference of this kind; ``changes`` are to its data.
    """
    return read_event(a_raw_event(upload_data(kind, **changes)), max_event_bytes=MAX_EVENT_BYTES)


def an_uploaded_image(kind: str = "https", **claims: Any) -> ImageUploadedV1:  # noqa: ANN401 - any claim
    """
    The data of an upload event with these claims about its image.
    """
    data = upload_data(kind)
    return ImageUploadedV1.model_validate_json(as_json({**data, "image": {**data["image"], **claims}}))


def a_fingerprint(**changes: Any) -> EncoderFingerprint:  # noqa: ANN401 - a field of any type may be changed
    """
    The fingerprint of an encoder; the hashes are made up.
    """
    preprocess = PreprocessSpec(
        size=224,
        resize_mode="shortest",
        interpolation="bicubic",
        fill_color=0,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        sha256="b1" * 32,
    )
    fields = {
        "model": "ViT-L-14-quickgelu/openai",
        "architecture_sha256": "a1" * 32,
        "weights_sha256": "a2" * 32,
        "preprocess": preprocess,
        "precision": "fp32",
        "dim": 768,
        "space": "a3" * 32,
        "id": "a4" * 32,
    }
    return EncoderFingerprint(**{**fields, **changes})


def a_bank_identity(**changes: Any) -> BankIdentity:  # noqa: ANN401 - a field of any type may be changed
    """
    The identity of a bank of two labels.
    """
    fields = {
        "id": "origins",
        "version": "2026.11.1",
        "manifest_sha256": "c1" * 32,
        "entries": 2400,
        "index": "flat",
        "sizes": {Label("real"): 1600, Label("ai_generated"): 800},
        "positive": Label("ai_generated"),
    }
    return BankIdentity(**{**fields, **changes})


def versions(**changes: Any) -> RunVersions:  # noqa: ANN401 - a field of any type may be changed
    """
    The versions behind every verdict of one run.
    """
    fields = {
        "encoder": a_fingerprint(),
        "bank": a_bank_identity(),
        "policy": PolicyIdentity("default", "7", "d1" * 32),
        "worker": "0.1.0",
        "decoders": {"pillow": "12.3.0"},
    }
    return RunVersions(**{**fields, **changes})


def thresholds() -> Thresholds:
    """
    The thresholds of one surface.
    """
    return Thresholds(
        rule="soft_vote",
        labels={"ai_generated": 0.9, "real": 0.8},
        min_margin=0.2,
        min_similarity=0.35,
        k=9,
        temperature=0.07,
    )


def facts(**changes: Any) -> ImageFacts:  # noqa: ANN401 - a field of any type may be changed
    """
    What was found in a photograph.
    """
    fields = {
        "sha256": IMAGE_SHA256,
        "byte_length": 83211,
        "format": "JPEG",
        "width": 1080,
        "height": 1350,
        "mode": "RGB",
        "frames_total": 1,
        "frames_scored": (0,),
        "orientation": 1,
        "alpha": "none",
        "pdq": "5e" * 32,
        "pdq_quality": 97,
    }
    return ImageFacts(**{**fields, **changes})


def a_neighbour(rank: int = 1, label: str = "ai_generated", entry_id: str = "origins:00123") -> NeighbourV1:
    """
    One reference of the bank.
    """
    return NeighbourV1(
        rank=rank,
        entry_id=entry_id,
        label=label,
        generator=None if label == "real" else "flux",
        source="study-2026",
        similarity=0.95 - 0.03 * rank,
        weight=0.3,
        exact=False,
    )


def evidence(*neighbours: NeighbourV1) -> Evidence:
    """
    Two labels and these neighbours (by default three).
    """
    shown = neighbours or (a_neighbour(1), a_neighbour(2, "real", "origins:00007"), a_neighbour(3))
    return Evidence(
        voted=9,
        coverage=0.61,
        neighbours=shown,
        per_label={
            "ai_generated": LabelEvidence(entries=800, votes=7, share=0.93, max_similarity=0.92, mean_similarity=0.8),
            "real": LabelEvidence(entries=1600, votes=2, share=0.07, max_similarity=0.89, mean_similarity=0.7),
        },
    )


def a_judgement(**changes: Any) -> Judgement:  # noqa: ANN401 - a field of any type may be changed
    """
    A decided judgement: generated by a machine.
    """
    fields = {
        "status": "decided",
        "label": Label("ai_generated"),
        "action": Action.LABEL,
        "score": 0.93,
        "margin": 0.86,
        "reasons": (Reason(code=ReasonCode.NEAREST_NEIGHBOURS, message="7 of 9 neighbours are ai_generated"),),
        "thresholds": thresholds(),
        "scores": (ScoreComponent(name="soft_vote", value=0.93, version="1"),),
        "evidence": evidence(),
    }
    return Judgement(**{**fields, **changes})


def an_abstention() -> Judgement:
    """
    A judgement that the model could not tell, for which the policy wants a person.
    """
    return a_judgement(
        status="abstained",
        label=None,
        action=Action.REVIEW,
        score=0.58,
        margin=0.16,
        reasons=(Reason(code=ReasonCode.LOW_MARGIN, message="margin 0.16, at least 0.2 is needed"),),
    )


def handled(**changes: Any) -> Handled:  # noqa: ANN401 - a field of any type may be changed
    """
    The way of an upload that was computed in a micro-batch of 16.
    """
    fields = {
        "facts": facts(),
        "provenance": Provenance("miss", None, decode_ms=6.5, encode_ms=48.0, batch_size=16),
        "produced_at_s": NOON_S,
        "fetch_ms": 41.0,
        "search_ms": 1.5,
    }
    return Handled(**{**fields, **changes})


def a_failure_ruling(action: Action = Action.REVIEW) -> FailureRuling:
    """
    What the policy says of uploads to ``post`` that could not be judged.
    """
    return FailureRuling("post", thresholds(), action)
