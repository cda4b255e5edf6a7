"""
The versions behind a verdict: enough to reproduce it from the same bytes.
"""

from pydantic import Field

from schemas.wire import Outgoing, Sha256


class EncoderVersion(Outgoing):
    """
    The frozen encoder, to the hash of its weights.
    """

    model: str
    architecture_sha256: Sha256
    weights_sha256: Sha256
    precision: str
    dim: int = Field(ge=1)
    fingerprint: Sha256


class PreprocessVersion(Outgoing):
    """
    How a picture becomes the encoder's input.
    """

    sha256: Sha256
    size: int = Field(ge=1)


class BankVersion(Outgoing):
    """
    The references that were asked.
    """

    id: str
    version: str
    manifest_sha256: Sha256
    entries: int = Field(ge=1)
    index: str
    judgement: str | None = Field(
        default=None, description="The fitted judgement that the bank carries, applied or not; null where it has none."
    )
    views: Sha256 | None = Field(default=None, description="What of each picture was looked at, beside the whole.")


class PolicyVersion(Outgoing):
    """
    The thresholds and actions that were applied, and for which surface.
    """

    id: str
    version: str
    sha256: Sha256
    surface: str


class Versions(Outgoing):
    """
    Everything needed to reproduce the verdict from the same bytes.
    """

    schema_version: str = Field(alias="schema", serialization_alias="schema")
    worker: str
    encoder: EncoderVersion
    preprocess: PreprocessVersion
    bank: BankVersion
    policy: PolicyVersion
    decoder: dict[str, str]
