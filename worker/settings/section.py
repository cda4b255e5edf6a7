"""
What all sections of the settings share: frozen, closed to unknown keys, and silent about values that may be secret.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic.config import JsonDict


def _not_empty(value: object) -> object:
    """
    The value itself. ``Path("")`` would be the working directory, which nobody means: raises ``ValueError``.
    """
    if value == "":
        raise ValueError("a path is not empty")
    return value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Seconds = Annotated[float, Field(gt=0)]
FilePath = Annotated[Path, BeforeValidator(_not_empty)]
# Of a secret address the host is shown, and the rest is not; of any other secret, nothing is.
SecretUrl = Annotated[SecretStr, Field(json_schema_extra={"format": "uri"})]
BESIDE_SECRET: JsonDict = {"besideSecret": True}
"""For a field that goes with a secret: whoever gave that here by mistake does not find it in the error."""


class Section(BaseModel):
    """
    A frozen part of the tree; an unknown key is an error, and no error repeats a value, which might be a secret.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    def _contradictions(self) -> Iterator[str]:
        """
        One line for each pair of values that cannot both be meant; asked once every value is right by itself.
        """
        yield from ()

    @model_validator(mode="after")
    def _values_agree(self) -> Self:
        found = list(self._contradictions())
        if found:
            raise ValueError("\n".join(found))
        return self
