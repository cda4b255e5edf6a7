"""
What a fitted judgement adds to a verdict: the calibration that a decision stands on, and who may have made the picture.

Both are null where the rule needs no fitted judgement; ``schemas.verdict`` says where they stand.
"""

from pydantic import Field

from schemas.wire import Fraction, Outgoing, UnitNumber


class CalibrationV1(Outgoing):
    """
    How sure the judgement may be: the conformal p-values of this picture, and the bounds that they were held against.

    Of real pictures like those of the calibration at most ``alpha`` have a ``p_value`` at or below ``flag_threshold``.
    """

    id: str = Field(description="Which fitted judgement; the same as `thresholds.calibration_id`.")
    p_value: UnitNumber = Field(
        description="Share of the calibration's real pictures that look at least as generated as this one; small is "
        "evidence against its being real."
    )
    alpha: Fraction = Field(description="The policy's bound on the share of real pictures that are flagged.")
    pac_delta: Fraction | None = Field(
        default=None,
        description="The bound holds for this very calibration but for this probability; null where it holds on "
        "average over calibrations.",
    )
    flag_threshold: UnitNumber = Field(description="The positive label is decided only at a p_value not above this.")
    bucket: str = Field(description="The group of calibration pictures that the p_value was taken from.")
    coverage_p: UnitNumber = Field(
        description="Share of the bank's like that lies at least as far from the bank; small means far from all of it."
    )
    coverage_alpha: UnitNumber = Field(description="Below this coverage_p the judgement abstains.")
    base_rate: Fraction = Field(description="Share of the positive label among uploads that `probability` assumes.")


class AttributionV1(Outgoing):
    """
    Which generator the nearest references point to. Information: it takes no part in the decision.
    """

    generator: str | None = Field(description="Null means unknown: none is sure enough, or the picture is like none.")
    probability: UnitNumber = Field(description="Of the named generator, else of the likeliest one.")
    posterior: dict[str, UnitNumber] = Field(
        description="The likeliest few, `real` among them where it is one; the whole sums to 1. Empty where it was "
        "left out to keep the message small."
    )
