"""
What all wire models share: frozen, closed to unknown fields on writing, open to them on reading.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Incoming(BaseModel):
    """
    A model that we read: unknown fields are ignored, so that a producer may be newer than we are.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Outgoing(BaseModel):
    """
    A model that we write: unknown fields are a programming error.

    The exported JSON Schema leaves ``additionalProperties`` open all the same: a minor version may add fields, and
    consumers must not break on them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def round_significant(value: float) -> float:
    """
    The value to six significant digits, so that a replay differs from the live run only where the judgement does.
    """
    return float(f"{value:.6g}")


Number = Annotated[float, AfterValidator(round_significant)]
UnitNumber = Annotated[float, Field(ge=0.0, le=1.0), AfterValidator(round_significant)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Milliseconds = Annotated[float, Field(ge=0.0), AfterValidator(round_significant)]
