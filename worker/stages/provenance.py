"""
What credentials that hold say of a generator: that all of a picture, or a part of it, was made by a trained model.

Reading them is ``worker/adapters/content_credentials.py``, what their manifests say is ``manifest_store.py``, and what
a verdict makes of it is the policy's. Absence proves nothing: most platforms strip credentials.
"""

from typing import Final, Literal

from schemas.verdict import ContentCredentials

DecideOn = Literal["valid", "trusted", "never"]
Extent = Literal["whole", "part"]

WHOLE: Final = frozenset({"trainedAlgorithmicMedia"})
PART: Final = frozenset({"compositeWithTrainedAlgorithmicMedia", "compositeSynthetic"})
"""
Terms of IPTC's digital source type (cv.iptc.org/newscodes/digitalsourcetype) under which a trained model took part.

``algorithmicMedia`` is made by rules that were not learnt from samples, ``algorithmicallyEnhanced`` is a correction,
and C2PA's ``trainedAlgorithmicData`` is no picture: these say nothing here.
"""

_GOOD_ENOUGH: Final[dict[DecideOn, frozenset[str]]] = {
    "valid": frozenset({"valid", "trusted"}),
    "trusted": frozenset({"trusted"}),
    "never": frozenset(),
}


def term_of(digital_source_type: object) -> str | None:
    """
    IPTC's term, the last part of the address that stands for it; None for what is no such address and no term.
    """
    if not isinstance(digital_source_type, str):
        return None
    term = digital_source_type.strip().rstrip("/").rpartition("/")[2]
    return term if len(term) <= 64 and term.isascii() and term.isalnum() else None  # noqa: PLR2004 - the longest has 35


def asserts_generated(credentials: ContentCredentials | None, decide_on: DecideOn) -> Extent | None:
    """
    Whether credentials that are good enough say that a trained model made the picture, or a part of it.

    ``decide_on``: the least state that is believed. Unsigned metadata are never believed: anybody can write them.
    """
    if credentials is None or credentials.state not in _GOOD_ENOUGH[decide_on]:
        return None
    term = term_of(credentials.digital_source_type)
    return "whole" if term in WHOLE else "part" if term in PART else None
