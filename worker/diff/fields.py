"""
What each field of a verdict is to a comparison. Every field of the contract stands here, once.

A test walks the contract and fails for a field that nobody has classified. How the compared fields are taken out of a
verdict is in ``seen.py``.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, get_args

from pydantic import BaseModel

from schemas.verdict import ImageVerdictV1


class Role(StrEnum):
    """
    What a field is to the comparison of two verdicts on the same upload event.
    """

    JOINED = "says which verdicts are about the same event"
    COMPARED = "a difference is counted"
    VERSION = "told for both sides, with those that differ"
    SHOWN = "names, groups or explains a difference, and is none itself"
    VOLATILE = "differs between two runs at equal versions"
    GIVEN = "stated by the event, by the file's bytes or by the policy, which the versions name"
    BEHIND = "numbers and words behind the outcome: they explain what is compared"


def _all(role: Role, *paths: str) -> dict[str, Role]:
    return dict.fromkeys(paths, role)


ROLES: Final[dict[str, Role]] = {
    **_all(Role.JOINED, "input.event_source", "input.event_id"),
    **_all(
        Role.COMPARED,
        "outcome.status",
        "outcome.label",
        "outcome.decision",
        "outcome.action",
        "outcome.score",
        "outcome.probability",
        "outcome.margin",
        "outcome.reasons.code",
        "missing_heads",
        "calibration.p_value",
        "attribution.generator",
        "error.code",
    ),
    **_all(
        Role.VERSION,
        "versions.schema_version",
        "versions.encoder.model",
        "versions.encoder.architecture_sha256",
        "versions.encoder.weights_sha256",
        "versions.encoder.precision",
        "versions.encoder.dim",
        "versions.encoder.fingerprint",
        "versions.preprocess.sha256",
        "versions.preprocess.size",
        "versions.bank.id",
        "versions.bank.version",
        "versions.bank.manifest_sha256",
        "versions.bank.entries",
        "versions.bank.index",
        "versions.bank.judgement",
        "versions.bank.views",
        "versions.policy.id",
        "versions.policy.version",
        "versions.policy.sha256",
    ),
    **_all(
        Role.SHOWN,
        "content_id",
        "image.sha256",
        "versions.policy.surface",
        "evidence.neighbours",
        "input.topic",
        "input.partition",
        "input.offset",
    ),
    **_all(
        Role.VOLATILE,
        "timing",
        "cache",
        "input.attempt",
        "error.attempts",
        "error.first_failed_at",
        "versions.worker",
        "versions.decoder",
        "verdict_id",
        "decision_id",
        "mode",
        "run_id",
        "supersedes",
    ),
    **_all(
        Role.GIVEN,
        "revision",
        "tenant_id",
        "attributes",
        "declared.ai_disclosed",
        "declared.digital_source_type",
        "content_created_at",
        "input.event_time",
        "input.envelope",
        "thresholds",
        "calibration.id",
        "calibration.alpha",
        "calibration.pac_delta",
        "calibration.flag_threshold",
        "calibration.guarantee",
        "calibration.sources",
        "calibration.coverage_alpha",
        "calibration.base_rate",
        "image.byte_length",
        "image.format",
        "image.width",
        "image.height",
        "image.mode",
        "image.frames_total",
        "image.frames_scored",
        "image.orientation",
        "image.alpha",
        "image.pdq",
        "image.pdq_quality",
        "image.media_type_mismatch",
        "image.credentials",
        "image.warnings",
    ),
    **_all(
        Role.BEHIND,
        "outcome.reasons.message",
        "scores",
        "calibration.bucket",
        "calibration.coverage_p",
        "attribution.probability",
        "attribution.posterior",
        "evidence.metric",
        "evidence.voted",
        "evidence.coverage",
        "evidence.per_label",
        "evidence.truncated",
        "evidence.frame",
        "evidence.ground",
        "error.error_class",
        "error.retryable",
        "error.stage",
        "error.detail",
        "error.http_status",
        "audit",
    ),
}
"""
By the path of the field's name in ``schemas``. A path without its sub-fields stands for all of them, those included
that a later version adds: only where the whole is of one kind.
"""


def unclassified(contract: type[BaseModel] = ImageVerdictV1) -> list[str]:
    """
    The paths of a contract that ``ROLES`` does not name, and the names in ``ROLES`` that the contract does not have.
    """
    met: set[str] = set()
    missing = [path for path in _leaves(contract, "", met) if path not in ROLES]
    return [*missing, *(f"{path} (no such field)" for path in ROLES if path not in met)]


def _leaves(model: type[BaseModel], above: str, met: set[str]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{above}{name}"
        met.add(path)
        below = list(_models_in(field.annotation))
        if path in ROLES or not below:
            yield path
        for inner in below if path not in ROLES else ():
            yield from _leaves(inner, f"{path}.", met)


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
