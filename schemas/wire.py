"""
What all wire models share: frozen, strict and open to unknown fields on reading, closed to them on writing.
"""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Incoming(BaseModel):
    """
    A model that we read: unknown fields are ignored, so that a producer may be newer than we are.

    Strict: ``"3"`` is no number and ``1`` no truth, so that what is read is what the exported JSON Schema allows.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, strict=True, allow_inf_nan=False)


class Outgoing(BaseModel):
    """
    A model that we write: unknown fields are a programming error, and so are numbers that JSON cannot hold.

    The exported JSON Schema leaves ``additionalProperties`` open all the same: a minor version may add fields, and
    consumers must not break on them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=BaseModel)
_put = object.__setattr__  # what pydantic itself writes a frozen model with


def unchecked(model: type[Model], values: dict[str, Any]) -> Model:
    """
    The model of values that are known to be right, in half the time: nothing is looked at, converted or rounded.

    ``values`` are all fields in their order, as validation would leave them. For what is made dozens of times for every
    upload from numbers of our own; ``tests/property/test_unchecked.py`` validates what these places make.
    """
    made = model.__new__(model)
    _put(made, "__dict__", values)
    _put(made, "__pydantic_fields_set__", set(values))
    _put(made, "__pydantic_extra__", None)
    _put(made, "__pydantic_private__", None)
    return made


def round_significant(value: float) -> float:
    """
    The value to six significant digits, so that a replay differs from the live run only where the judgement does.
    """
    return float(f"{value:.6g}")


def _round_first(value: object) -> object:
    return round_significant(value) if isinstance(value, float) else value


Number = Annotated[float, AfterValidator(round_significant)]
# Rounded before the bounds are checked: shares that sum to 1 + 2e-16 are shares.
UnitNumber = Annotated[float, Field(ge=0.0, le=1.0), BeforeValidator(_round_first)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0), BeforeValidator(_round_first)]
Milliseconds = Annotated[float, Field(ge=0.0), BeforeValidator(_round_first)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
"""Text without control characters, as a CloudEvents attribute must be (CloudEvents 1.0, type system)."""
