"""
What a fitted judgement says of one picture, before any policy is looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeadScore:
    """
    What one head said of a picture: ``value`` as the head gives it, ``evidence`` in log-odds for the positive label.
    """

    name: str
    version: str
    value: float
    evidence: float


@dataclass(frozen=True, slots=True)
class Attribution:
    """
    Which generator the neighbours point to; None when none of them is sure enough, or the picture is like none.

    ``posterior`` holds one probability per generator of the bank and one for ``real``; they sum to 1.
    """

    generator: str | None
    probability: float
    posterior: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Assessment:
    """
    What a fitted judgement makes of a picture before any policy is looked at.

    ``log_odds`` of the positive label at the calibration's own base rate. ``p_value``: conformal, under "it is real";
    small is evidence against. ``bucket`` names the calibration set that it was taken from. ``coverage_p``: conformal,
    under "it is like what the bank holds". ``missing`` names the heads that could not say.

    ``sources`` of reals were ranked among one by one; ``source`` is the group of them that made the p-value larger than
    it is in its bucket, None where none did; ``bucket_p`` is that in its bucket alone, None where it was not told.
    """

    log_odds: float
    p_value: float
    bucket: str
    coverage_p: float
    heads: tuple[HeadScore, ...]
    missing: tuple[str, ...]
    attribution: Attribution
    sources: int = 0
    source: str | None = None
    bucket_p: float | None = None
