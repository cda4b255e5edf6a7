"""
What a fitted judgement adds to a verdict: the calibration that a decision stands on, and who may have made the picture.

Both are null where the rule needs no fitted judgement; ``schemas.verdict`` says where they stand.
"""

from typing import Annotated, Final, Literal, get_args

from pydantic import Field, WithJsonSchema

from schemas.wire import Fraction, Outgoing, UnitNumber

Guarantee = Literal["each_source", "pooled"]
"""Whether the bound on false positives is to hold in each source of the calibration's reals, or over all together."""

# Like an enumeration of ours, open to values that a later minor version adds.
_OPEN_GUARANTEE: Final = WithJsonSchema(
    {"anyOf": [{"type": "string", "enum": list(get_args(Guarantee))}, {"type": "string"}, {"type": "null"}]}
)


class CalibrationV1(Outgoing):
    """
    How sure the judgement may be: the conformal p-values of this picture, and the bounds that they were held against.

    Of real pictures like those of the calibration at most ``alpha`` have a ``p_value`` at or below ``flag_threshold``;
    under the guarantee ``each_source``, of those like the calibration's of any one source.
    """

    id: str = Field(description="Which fitted judgement; the same as `thresholds.calibration_id`.")
    p_value: UnitNumber = Field(
        description="Share of the calibration's real pictures that look at least as generated as this one: among those "
        "of `bucket`, and under the guarantee `each_source` the largest of that and of the shares in each source. "
        "Small is evidence against its being real."
    )
    alpha: Fraction = Field(description="The policy's bound on the share of real pictures that are flagged.")
    pac_delta: Fraction | None = Field(
        default=None,
        description="The bound holds for this very calibration but for this probability; null where it holds on "
        "average over calibrations.",
    )
    flag_threshold: UnitNumber = Field(description="The positive label is decided only at a p_value not above this.")
    guarantee: Annotated[Guarantee | None, _OPEN_GUARANTEE] = Field(
        default=None,
        description="`each_source`: the bound holds for pictures like those of any one source of the calibration's "
        "real pictures. `pooled`: over all of them together, or all of a kind of file; in one source it may be more.",
    )
    sources: int | None = Field(
        default=None,
        ge=0,
        description="How many sources of real pictures, K, the p_value was taken in one by one; 0 where it was taken "
        "in none. Of sources never seen the bound then holds in K of K + 1, if they are drawn as these were.",
    )
    bucket: str = Field(
        description="The group of calibration pictures that the p_value was taken from, beside single sources."
    )
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
