"""
``image.verdict.v1``: the one terminal answer to an upload event, with the evidence and every version behind it.

Volatile fields, which differ between two runs at equal versions and are outside every comparison: ``timing``,
``cache``, ``input.attempt``, ``versions.worker`` and ``versions.decoder``.
"""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self, get_args
from uuid import UUID

from pydantic import AwareDatetime, ConfigDict, Field, WithJsonSchema, model_validator

from schemas.handling import Audit, ErrorV1, Timing
from schemas.judgement import AttributionV1, CalibrationV1
from schemas.versions import Versions
from schemas.wire import Number, Outgoing, Sha256, UnitNumber

TYPE = "image.verdict.v1"

Mode = Literal["live", "shadow", "replay", "scan"]
Status = Literal["decided", "abstained", "failed"]
Envelope = Literal["binary", "structured", "bare"]
CacheStatus = Literal["hit", "miss", "coalesced", "bypass", "disabled", "not_reached"]
CacheTier = Literal["process", "redis", "archive"]
AppliedRule = Literal["fused", "soft_vote", "nearest_neighbour"]

UNCERTAIN: Final = "uncertain"
"""What ``outcome.decision`` says of an abstention."""


class Action(StrEnum):
    """
    What the policy recommends; Touchstone enforces nothing.
    """

    NONE = "none"
    ALLOW = "allow"
    LABEL = "label"
    LIMIT = "limit"
    REVIEW = "review"
    BLOCK = "block"


class ReasonCode(StrEnum):
    """
    Why the judgement came out as it did. Open: consumers treat an unknown code as information.
    """

    NEAREST_NEIGHBOURS = "NEAREST_NEIGHBOURS"
    CALIBRATED = "CALIBRATED"
    CREDENTIALS = "CREDENTIALS"
    CREDENTIALS_INVALID = "CREDENTIALS_INVALID"
    EXACT_MATCH = "EXACT_MATCH"
    NOT_SIGNIFICANT = "NOT_SIGNIFICANT"
    SIGNIFICANT = "SIGNIFICANT"
    LOW_COVERAGE = "LOW_COVERAGE"
    LOW_MARGIN = "LOW_MARGIN"
    BELOW_THRESHOLD = "BELOW_THRESHOLD"
    IMAGE_TOO_SMALL = "IMAGE_TOO_SMALL"
    ASPECT_EXTREME = "ASPECT_EXTREME"
    FRAMES_UNSEEN = "FRAMES_UNSEEN"
    FAILED = "FAILED"


class Reason(Outgoing):
    """
    One reason, for machines (``code``) and for people (``message``).
    """

    code: ReasonCode
    message: str = Field(max_length=512)


class Input(Outgoing):
    """
    Which event this verdict answers.
    """

    topic: str
    partition: int
    offset: int
    event_id: str
    event_source: str
    event_time: AwareDatetime | None
    envelope: Envelope
    attempt: int = Field(default=1, ge=1)


class OutcomeV1(Outgoing):
    """
    The judgement: decided (with a label), abstained (the model looked and could not tell) or failed (it never looked).
    """

    status: Status
    label: str | None = Field(description="One of the bank's labels; null unless decided.")
    decision: str | None = Field(
        default=None, description="The label when decided, `uncertain` when abstained, null when failed."
    )
    action: Action
    score: UnitNumber | None = Field(
        description="The rule's weight of the bank's positive label; under `fused` that is the probability. Null when "
        "failed. Credentials do not move it."
    )
    probability: UnitNumber | None = Field(
        description="Of the positive label: calibrated, and shifted to `calibration.base_rate`. Null unless `fused`."
    )
    margin: Number | None = Field(description="Lead of the first label over the second, in score.")
    reasons: tuple[Reason, ...]


# Like an enumeration of ours, open to values that a later minor version adds.
_OPEN_RULE: Final = WithJsonSchema(
    {"anyOf": [{"type": "string", "enum": list(get_args(AppliedRule))}, {"type": "string"}]}
)
_OPEN_TIER: Final = WithJsonSchema(
    {"anyOf": [{"type": "string", "enum": list(get_args(CacheTier))}, {"type": "string"}]}
)


class Thresholds(Outgoing):
    """
    The numbers that turned the score into the outcome, as the policy had them.
    """

    rule: Annotated[AppliedRule, _OPEN_RULE] = Field(description="The rule that was applied.")
    labels: dict[str, UnitNumber] = Field(description="Per label, the least score that decides for it.")
    min_margin: UnitNumber
    min_similarity: Number = Field(
        description="Coverage: the k-th neighbour must be at least this similar. Not asked under `fused`, which has "
        "`calibration.coverage_alpha`."
    )
    k: int = Field(ge=1)
    temperature: Annotated[Number, Field(gt=0)]
    calibration_id: str | None = Field(default=None, description="Which fitted judgement; null unless `fused`.")


class ScoreComponent(Outgoing):
    """
    One number that a head contributed.
    """

    name: str
    value: Number = Field(description="As the head gives it, on its own scale.")
    version: str
    evidence: Number | None = Field(
        default=None, description="Log-odds that it adds for the positive label; null for what is not fused."
    )


class NeighbourV1(Outgoing):
    """
    One reference of the bank, near to the upload.
    """

    rank: int = Field(ge=1)
    entry_id: str
    label: str
    generator: str | None
    source: str | None
    similarity: Number = Field(description="Cosine, -1 to 1.")
    weight: UnitNumber = Field(description="This neighbour's share in the vote.")
    exact: bool = Field(description="The reference has the very bytes of the upload.")


class LabelEvidence(Outgoing):
    """
    How one label's references stand to the upload.
    """

    entries: int = Field(ge=0, description="References of this label in the bank.")
    votes: int = Field(ge=0, description="Of these, how many are among the neighbours that voted.")
    share: UnitNumber = Field(description="This label's weight in the class-weighted soft vote.")
    max_similarity: Number | None
    mean_similarity: Number | None = Field(description="Over the neighbours that voted.")


class Evidence(Outgoing):
    """
    What the judgement rests on.
    """

    metric: Literal["cosine"] = "cosine"
    voted: int = Field(ge=0, description="Neighbours that took part in the vote.")
    coverage: Number = Field(description="Similarity of the k-th nearest reference, whatever its label.")
    neighbours: tuple[NeighbourV1, ...]
    per_label: dict[str, LabelEvidence]
    truncated: bool = Field(
        default=False, description="Neighbours (the farthest first) were left out to keep the message small."
    )
    frame: int | None = Field(
        default=None,
        description="Of several looks at the picture (`image.frames_scored`), the frame of the one that the judgement "
        "and this evidence rest on: the one with the highest score. Null where there was one look.",
    )
    ground: Literal["white", "grey"] | None = Field(
        default=None, description="On which ground that frame was looked at, where some were looked at on both."
    )


class ContentCredentials(Outgoing):
    """
    What the file says of its own origin. Absence proves nothing: most platforms strip it.
    """

    state: Literal["invalid", "valid", "trusted"] | None = Field(
        description="C2PA manifest: signature and hashes hold (valid), and its signer is on the trust list (trusted); "
        "null where the file has none."
    )
    digital_source_type: str | None = Field(
        default=None, description="IPTC term that the manifest asserts, such as trainedAlgorithmicMedia."
    )
    issuer: str | None = Field(default=None, max_length=256)
    claim_generator: str | None = Field(default=None, max_length=256)
    unsigned_digital_source_type: str | None = Field(
        default=None, description="IPTC term in plain XMP metadata, which anybody can write: a hint, never weighed."
    )


class ImageFacts(Outgoing):
    """
    What the decoder found in the bytes; null fields were not reached.
    """

    sha256: Sha256
    byte_length: int = Field(ge=0)
    format: str | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    frames_total: int | None = None
    frames_scored: tuple[int, ...] = Field(
        default=(),
        description="One number for each look at the picture: of an animation some frames; a frame whose ground shines "
        "through stands here twice, as it was looked at on white and then on mid-grey.",
    )
    orientation: int | None = Field(default=None, description="EXIF orientation that was undone; 1 is upright.")
    alpha: Literal["none", "opaque", "composited"] | None = None
    pdq: str | None = Field(
        default=None, description="PDQ hash, 64 hex digits, of the picture reduced to at most 512 px; a hint only."
    )
    pdq_quality: int | None = None
    media_type_mismatch: bool = False
    credentials: ContentCredentials | None = Field(default=None, description="Null where nothing was found.")
    warnings: tuple[str, ...] = ()


class CacheProvenance(Outgoing):
    """
    Where the embedding came from: computed now (miss), recalled (hit), or computed for a twin in flight (coalesced).
    """

    status: CacheStatus
    tier: Annotated[CacheTier, _OPEN_TIER] | None = Field(
        default=None,
        description="Where it was recalled from. `archive` holds embeddings kept for replays, and is seen only there.",
    )


class DeclaredOrigin(Outgoing):
    """
    What the producer said about the origin, echoed; it was not weighed.
    """

    ai_disclosed: bool | None = None
    digital_source_type: str | None = None


_NULL: Final = {"type": "null"}
_NOT_NULL: Final = {"not": _NULL}


def _when(status: Status, outcome: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    named = {"outcome": {"properties": {"status": {"const": status}}}}
    return {"if": {"properties": named}, "then": {"properties": {"outcome": {"properties": outcome}, **rest}}}


class ImageVerdictV1(Outgoing):
    """
    One verdict. Exactly one per consumed event and set of versions: duplicates share ``verdict_id``.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                _when(
                    "decided",
                    {"label": _NOT_NULL, "decision": _NOT_NULL, "score": _NOT_NULL},
                    {"evidence": _NOT_NULL, "error": _NULL},
                ),
                _when(
                    "abstained",
                    {"label": _NULL, "decision": {"const": UNCERTAIN}, "score": _NOT_NULL},
                    {"evidence": _NOT_NULL, "error": _NULL},
                ),
                _when(
                    "failed",
                    {"label": _NULL, "decision": _NULL, "score": _NULL},
                    {"evidence": _NULL, "calibration": _NULL, "error": _NOT_NULL},
                ),
            ]
        }
    )

    verdict_id: UUID = Field(description="From the event and the versions: duplicates collapse on it.")
    decision_id: UUID = Field(
        description="From content id, surface, bytes and versions: equal when the same content is uploaded again."
    )
    mode: Mode
    run_id: str | None = None
    supersedes: UUID | None = None
    content_id: str
    revision: int = Field(ge=0)
    tenant_id: str | None
    attributes: dict[str, str]
    declared: DeclaredOrigin | None = None
    content_created_at: AwareDatetime | None = Field(default=None, description="The producer's word for it.")
    input: Input
    outcome: OutcomeV1
    thresholds: Thresholds
    scores: tuple[ScoreComponent, ...]
    missing_heads: tuple[str, ...] = Field(
        default=(), description="Heads of the fitted judgement that could not say, or were not asked, of this picture."
    )
    calibration: CalibrationV1 | None = Field(default=None, description="Null unless `fused`, and when failed.")
    attribution: AttributionV1 | None = Field(default=None, description="Null unless `fused`, and when failed.")
    evidence: Evidence | None
    image: ImageFacts | None
    versions: Versions
    cache: CacheProvenance
    timing: Timing
    error: ErrorV1 | None
    audit: Audit

    @model_validator(mode="after")
    def _outcome_is_whole(self) -> Self:
        status, failed = self.outcome.status, self.outcome.status == "failed"
        if (self.error is not None) != failed:
            raise ValueError(f"a verdict has an error if and only if it failed; this one is {status}")
        if (self.evidence is None) != failed or (self.outcome.score is None) != failed:
            raise ValueError(f"a verdict has evidence and a score unless it failed; this one is {status}")
        if (self.outcome.label is not None) != (status == "decided"):
            raise ValueError(f"a verdict has a label if and only if it is decided; this one is {status}")
        expected = UNCERTAIN if status == "abstained" else self.outcome.label
        if self.outcome.decision not in {None, expected}:  # None: written before there were decisions, in 1.0
            raise ValueError(f"decision is {self.outcome.decision!r}, expected {expected!r} of what is {status}")
        if (self.outcome.probability is None) != (self.calibration is None):
            raise ValueError("a verdict has a probability if and only if it has a calibration")
        return self
