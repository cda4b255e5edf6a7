"""
What Content Credentials (C2PA) that came with an image say, as reasons. Reading them is an adapter's affair.

They can only raise evidence of a generator: absent or silent credentials prove nothing, since most platforms strip them
and whoever wants to hide an origin can too.
"""

from typing import Final

from schemas.verdict import ContentCredentials, Reason, ReasonCode
from worker.policy import CredentialsRule
from worker.stages.provenance import asserts_generated

_EXTENT: Final = {"whole": "", "part": "partly "}


def assertion_of_generation(found: ContentCredentials | None, rule: CredentialsRule) -> Reason | None:
    """
    The reason to decide for the policy's label outright: credentials, good enough for it, that assert a trained model.
    """
    extent = asserts_generated(found, rule.decide_on)
    if found is None or extent is None:
        return None
    issuer = found.issuer or "an issuer that is not named"
    made = f"a trained model made it {_EXTENT[extent]}".strip()
    message = f"{found.state} content credentials, signed by {issuer}, say that {made}"
    return Reason(code=ReasonCode.CREDENTIALS, message=message)


def note_on_invalid(found: ContentCredentials | None) -> tuple[Reason, ...]:
    """
    That the credentials do not hold, where they do not: information, without any weight.
    """
    if found is None or found.state != "invalid":
        return ()
    message = "the content credentials do not hold: a signature or a hash is wrong; they were not weighed"
    return (Reason(code=ReasonCode.CREDENTIALS_INVALID, message=message),)
