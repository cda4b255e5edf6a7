"""
What Content Credentials (C2PA) that came with an image say, as reasons. Reading them is an adapter's affair.

They can only raise evidence of a generator: absent or silent credentials prove nothing, since most platforms strip them
and whoever wants to hide an origin can too.
"""

from typing import Final

from schemas.verdict import ContentCredentials, Reason, ReasonCode
from worker.policy import CredentialsRule

GENERATED: Final = "trainedAlgorithmicMedia"
PARTLY_GENERATED: Final = "compositeWithTrainedAlgorithmicMedia"
"""Terms of IPTC's digital source type: made by a trained model, and a composite of which a part was."""

_GOOD_ENOUGH: Final = {"valid": {"valid", "trusted"}, "trusted": {"trusted"}, "never": set[str]()}


def assertion_of_generation(found: ContentCredentials | None, rule: CredentialsRule) -> Reason | None:
    """
    The reason to decide for the policy's label outright: credentials, good enough for it, that assert a trained model.
    """
    if found is None or found.state not in _GOOD_ENOUGH[rule.decide_on]:
        return None
    extent = {GENERATED: "", PARTLY_GENERATED: "partly "}.get(_term(found.digital_source_type))
    if extent is None:
        return None
    issuer = found.issuer or "an issuer that is not named"
    message = (
        f"{found.state} content credentials, signed by {issuer}, say that a trained model made it {extent}".strip()
    )
    return Reason(code=ReasonCode.CREDENTIALS, message=message)


def note_on_invalid(found: ContentCredentials | None) -> tuple[Reason, ...]:
    """
    That the credentials do not hold, where they do not: information, without any weight.
    """
    if found is None or found.state != "invalid":
        return ()
    message = "the content credentials do not hold: a signature or a hash is wrong; they were not weighed"
    return (Reason(code=ReasonCode.CREDENTIALS_INVALID, message=message),)


def _term(digital_source_type: str | None) -> str:
    # The term is the last part of IPTC's address for it; some writers give the term alone.
    return (digital_source_type or "").rpartition("/")[2]
