"""
The last stage but one: what was found about an upload becomes its verdict, in the words of the contract.

Pure functions. They judge nothing: thresholds, label and action come from the policy. Nothing is serialised here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from uuid import UUID

from schemas import SCHEMA_VERSION
from schemas.errors import ErrorClass, class_of
from schemas.handling import Audit, ErrorV1, Timing
from schemas.identity import DecisionVersions, decision_id, evidence_of, verdict_id
from schemas.uploaded import UploadedImage
from schemas.verdict import (
    UNCERTAIN,
    Action,
    CacheProvenance,
    CacheStatus,
    CacheTier,
    DeclaredOrigin,
    ImageFacts,
    ImageVerdictV1,
    Input,
    Mode,
    OutcomeV1,
    Reason,
    ReasonCode,
    Thresholds,
)
from schemas.versions import BankVersion, EncoderVersion, PolicyVersion, PreprocessVersion, Versions
from schemas.wire import round_significant, unchecked
from worker.domain import BankIdentity, EncoderFingerprint, Judgement, Provenance, Upload
from worker.errors import UploadFailed
from worker.outcomes import VerdictIssued
from worker.stages.sniff import MEDIA_TYPES


@dataclass(frozen=True, slots=True)
class PolicyIdentity:
    """
    Which policy was applied; ``sha256`` covers all that it says.
    """

    id: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class RunVersions:
    """
    Everything that stays the same for all verdicts of one run of the worker.

    ``decoders`` maps a library to its version; ``run_id`` names a replay or a shadow run, None when live. ``judgement``
    is the id of the fitted judgement that the bank carries and ``views`` the sha256 of its views: both lie within
    ``bank.manifest_sha256``, so the ids cover them.
    """

    encoder: EncoderFingerprint
    bank: BankIdentity
    policy: PolicyIdentity
    worker: str
    decoders: Mapping[str, str]
    mode: Mode = "live"
    run_id: str | None = None
    judgement: str | None = None
    views: str | None = None
    _on_surface: dict[str, Versions] = field(default_factory=dict, init=False, repr=False, compare=False)

    def decision_versions(self) -> DecisionVersions:
        """
        The versions that the ids depend on.
        """
        return DecisionVersions(
            encoder=self.encoder.id,
            preprocess=self.encoder.preprocess.sha256,
            bank=self.bank.manifest_sha256,
            index=self.bank.index,
            policy=self.policy.sha256,
            schema_major=SCHEMA_VERSION.partition(".")[0],
        )

    def on_surface(self, surface: str) -> Versions:
        """
        The versions as a verdict states them: one value for all verdicts of a surface.
        """
        stated = self._on_surface.get(surface)
        if stated is None:
            stated = self._on_surface[surface] = self._stated(surface)
        return stated

    def _stated(self, surface: str) -> Versions:
        encoder, bank, policy = self.encoder, self.bank, self.policy
        return Versions(
            schema_version=SCHEMA_VERSION,
            worker=self.worker,
            encoder=EncoderVersion(
                model=encoder.model,
                architecture_sha256=encoder.architecture_sha256,
                weights_sha256=encoder.weights_sha256,
                precision=encoder.precision,
                dim=encoder.dim,
                fingerprint=encoder.id,
            ),
            preprocess=PreprocessVersion(sha256=encoder.preprocess.sha256, size=encoder.preprocess.size),
            bank=BankVersion(
                id=bank.id,
                version=bank.version,
                manifest_sha256=bank.manifest_sha256,
                entries=bank.entries,
                index=bank.index,
                judgement=self.judgement,
                views=self.views,
            ),
            policy=PolicyVersion(id=policy.id, version=policy.version, sha256=policy.sha256, surface=surface),
            decoder=dict(self.decoders),
        )


@dataclass(frozen=True, slots=True)
class Handled:
    """
    How an upload went through the stages: what is known of its bytes, where its embedding came from, and when.

    ``facts`` is None when the bytes could not be had; ``facts_of_bytes`` gives those of bytes that were never decoded.
    ``produced_at_s`` is in seconds since the epoch; ``supersedes`` is the id of the verdict that this one replaces.
    """

    facts: ImageFacts | None
    provenance: Provenance
    produced_at_s: float
    fetch_ms: float | None = None
    search_ms: float | None = None
    assess_ms: float | None = None
    supersedes: UUID | None = None


@dataclass(frozen=True, slots=True)
class FailureRuling:
    """
    What the policy says of an upload of this surface that could not be judged.
    """

    surface: str
    thresholds: Thresholds
    action: Action


def facts_of_bytes(content_hash: str, byte_length: int) -> ImageFacts:
    """
    All that is known of bytes that were fetched and not decoded.
    """
    return ImageFacts(sha256=content_hash, byte_length=byte_length)


def verdict_of_judgement(
    upload: Upload, judgement: Judgement, *, surface: str, handled: Handled, versions: RunVersions
) -> VerdictIssued:
    """
    The verdict on an upload that was judged: decided or abstained.

    Raises ``ValueError`` when the judgement breaks the contract (a label without being decided, numbers out of range)
    or ``handled`` has no facts.
    """
    outcome = OutcomeV1(
        status=judgement.status,
        label=judgement.label,
        decision=UNCERTAIN if judgement.label is None else judgement.label,
        action=judgement.action,
        score=judgement.score,
        probability=judgement.probability,
        margin=judgement.margin,
        reasons=judgement.reasons,
    )
    return _issued(upload, _Findings(surface, outcome, judgement.thresholds, judgement), handled, versions)


def verdict_of_failure(
    upload: Upload, failure: UploadFailed, *, ruling: FailureRuling, handled: Handled, versions: RunVersions
) -> VerdictIssued:
    """
    The verdict on an upload that could not be judged: no label, no score, and the reason why.
    """
    detail = failure.detail.encode("utf-8", "replace").decode()  # a file's name may hold what is no text
    outcome = OutcomeV1(
        status="failed",
        label=None,
        action=ruling.action,
        score=None,
        probability=None,
        margin=None,
        reasons=(Reason(code=ReasonCode.FAILED, message=f"not judged: {failure.code}"),),
    )
    error_class, origin = class_of(failure.code), upload.raw.origin
    error = ErrorV1(
        code=failure.code,
        error_class=error_class,
        retryable=error_class is ErrorClass.TRANSIENT,
        stage=failure.stage,
        detail=detail,
        http_status=failure.http_status,
        attempts=1 if origin is None else origin.attempts + 1,
        first_failed_at=datetime.fromtimestamp(
            handled.produced_at_s if origin is None else origin.first_failed_at_s, UTC
        ),
    )
    return _issued(upload, _Findings(ruling.surface, outcome, ruling.thresholds, error=error), handled, versions)


@dataclass(frozen=True, slots=True)
class _Findings:
    surface: str
    outcome: OutcomeV1
    thresholds: Thresholds
    judgement: Judgement | None = None
    error: ErrorV1 | None = None


def _issued(upload: Upload, findings: _Findings, handled: Handled, versions: RunVersions) -> VerdictIssued:
    event, outcome, judgement = upload.data, findings.outcome, findings.judgement
    facts = None if handled.facts is None else _against_claim(handled.facts, event.image)
    verdict_uuid, decision_uuid = _ids(upload, findings, facts, versions)
    verdict = ImageVerdictV1(
        verdict_id=verdict_uuid,
        decision_id=decision_uuid,
        mode=versions.mode,
        run_id=versions.run_id,
        supersedes=handled.supersedes,
        content_id=event.content_id,
        revision=event.revision,
        tenant_id=event.tenant_id,
        attributes=event.attributes,
        declared=_declared(upload),
        content_created_at=event.context.created_at if event.context else None,
        input=_input(upload),
        outcome=outcome,
        thresholds=findings.thresholds,
        scores=judgement.scores if judgement else (),
        missing_heads=judgement.missing_heads if judgement else (),
        calibration=judgement.calibration if judgement else None,
        attribution=judgement.attribution if judgement else None,
        evidence=judgement.evidence if judgement else None,
        image=facts,
        versions=versions.on_surface(findings.surface),
        cache=_cache(handled.provenance.status, handled.provenance.tier),
        timing=_timing(upload, handled),
        error=findings.error,
        # An abstention asks for a person only where the policy recommends one: it may as well let the image pass.
        audit=_audit(human_review_required=outcome.action is Action.REVIEW),
    )
    return VerdictIssued(upload.key, upload.identity, verdict)


@lru_cache  # of so few there need be no more than one each
def _cache(status: CacheStatus, tier: CacheTier | None) -> CacheProvenance:
    return CacheProvenance(status=status, tier=tier)


@lru_cache  # likewise
def _audit(*, human_review_required: bool) -> Audit:
    return Audit(human_review_required=human_review_required)


def _ids(upload: Upload, findings: _Findings, facts: ImageFacts | None, versions: RunVersions) -> tuple[UUID, UUID]:
    event, identity, decisive = upload.data, upload.identity, versions.decision_versions()
    evidence = evidence_of(facts.sha256 if facts else None, findings.error.code if findings.error else None)
    content = (event.tenant_id, event.content_id, event.revision)
    return (
        verdict_id(identity.source, identity.id, decisive, mode=versions.mode, run_id=versions.run_id),
        decision_id(content, decisive, surface=findings.surface, evidence=evidence),
    )


def _declared(upload: Upload) -> DeclaredOrigin | None:
    declared = upload.data.declared
    if declared is None:
        return None
    return DeclaredOrigin(ai_disclosed=declared.ai_disclosed, digital_source_type=declared.digital_source_type)


def _input(upload: Upload) -> Input:
    raw, identity = upload.raw, upload.identity
    place, offset = raw.first_place
    return Input(
        topic=place.topic,
        partition=place.number,
        offset=offset,
        event_id=identity.id,
        event_source=identity.source,
        event_time=identity.time,
        envelope=identity.envelope,
    )


def _timing(upload: Upload, handled: Handled) -> Timing:
    raw, provenance = upload.raw, handled.provenance
    recorded_ms = raw.first_timestamp_ms
    happened_at_s = None if recorded_ms is None or recorded_ms < 0 else recorded_ms / 1000
    if upload.identity.time is not None:
        happened_at_s = upload.identity.time.timestamp()
    # Clocks differ between machines and may be set back: what seems to lie in the future is 0 ms old.
    event_age_s = None if happened_at_s is None else max(0.0, handled.produced_at_s - happened_at_s)
    # Not validated: moments are those of our own clock, and durations its differences.
    fields = {
        "received_at": datetime.fromtimestamp(raw.received_at_s, UTC),
        "produced_at": datetime.fromtimestamp(handled.produced_at_s, UTC),
        "event_age_ms": None if event_age_s is None else round_significant(event_age_s * 1000),
        "total_ms": round_significant(max(0.0, handled.produced_at_s - raw.received_at_s) * 1000),
        "fetch_ms": _rounded(handled.fetch_ms),
        "decode_ms": _rounded(provenance.decode_ms),
        "encode_ms": _rounded(provenance.encode_ms),
        "search_ms": _rounded(handled.search_ms),
        "assess_ms": _rounded(handled.assess_ms),
        "batch_size": provenance.batch_size,
    }
    return unchecked(Timing, fields)


def _rounded(duration_ms: float | None) -> float | None:
    return None if duration_ms is None else round_significant(duration_ms)


_ALIASES: Final[Mapping[str, str]] = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/apng": "image/png",
    "image/avif-sequence": "image/avif",
}
_NO_CLAIM: Final = frozenset({"", "application/octet-stream", "binary/octet-stream", "image/*"})


def _against_claim(facts: ImageFacts, image: UploadedImage) -> ImageFacts:
    # The facts may come from the cache or from a twin in flight, whose producer claimed another type.
    claim = (image.media_type or "").partition(";")[0].strip().lower()
    found = MEDIA_TYPES.get(facts.format or "")
    mismatch = found is not None and claim not in _NO_CLAIM and _ALIASES.get(claim, claim) != found
    if facts.media_type_mismatch == mismatch:
        return facts
    return facts.model_copy(update={"media_type_mismatch": mismatch})
