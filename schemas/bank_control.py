"""
``bank.control.v1``: which bank release the workers are to use, and what of it is to be left out at once.

One record per bank on a compacted topic, keyed by the bank's name: the newest one is what holds.
"""

from typing import Annotated

from pydantic import AwareDatetime, Field

from schemas.wire import Incoming, Line, Sha256

TYPE = "bank.control.v1"
MAX_SIGNATURES = 16


class BankControlV1(Incoming):
    """
    The state that an operator wants. A worker that cannot reach it keeps what it has, and says why.
    """

    bank: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="The bank's id, and the record's key.")
    release: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", description="A release below the configured place of releases."
    )
    manifest_sha256: Sha256 = Field(
        description="Of the release's manifest: another release under that name is refused."
    )
    canaries_sha256: Sha256 | None = Field(
        default=None, description="Of the release's canaries.json; null where the release was published without."
    )
    disabled_entries: tuple[Line, ...] = Field(
        default=(), max_length=10_000, description="References left out, by id or sha256."
    )
    disabled_generators: tuple[Line, ...] = Field(
        default=(), max_length=1_000, description="Generators whose references are left out."
    )
    disabled_sources: tuple[Line, ...] = Field(
        default=(), max_length=1_000, description="Sources whose references are left out."
    )
    issued_at: AwareDatetime
    issued_by: Line | None = Field(default=None, max_length=128)
    reason: str | None = Field(default=None, max_length=512)
    signatures: tuple[Annotated[str, Field(pattern=r"^ed25519 [0-9a-f]{64} [0-9a-f]{128}$")], ...] = Field(
        default=(),
        max_length=MAX_SIGNATURES,
        description="`ed25519 PUBLIC_KEY SIGNATURE` (hex) of each key that signed, over the other fields; issued_at "
        "grows from one signed record of a bank to the next.",
    )
