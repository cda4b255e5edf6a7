"""
How large a soak is: short in `make test`, long in `make soak`, and whatever the environment says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Self

PREFIX = "TOUCHSTONE_SOAK_"


@dataclass(frozen=True, slots=True)
class Scale:
    """
    Rounds of SIGKILL and of every other fault, uploads of each round, and how far the memory campaign goes.

    ``fuzz_seconds`` is how long damaged files are thrown at the decoder. ``TOUCHSTONE_SOAK_KILLS=5`` and so on change
    them.
    """

    kills: int = 50
    rounds: int = 5
    wave: int = 300
    memory_uploads: int = 200_000
    memory_loads: int = 50
    fuzz_seconds: int = 600

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """
        The long form, but for what the environment says; ``ValueError`` names what is no number.
        """
        told = {one.name: environ.get(PREFIX + one.name.upper()) for one in fields(cls)}
        for name, text in told.items():
            if text is not None and not (text.isdecimal() and int(text) > 0):
                raise ValueError(f"{PREFIX}{name.upper()} is {text!r}, expected a whole number above 0")
        return cls(**{name: int(text) for name, text in told.items() if text is not None})

    def killing(self, share: float = 1.0) -> Self:
        """
        With as many rounds as workers are to be killed, or this share of them.
        """
        return replace(self, rounds=round(self.kills * share))


SHORT = Scale(kills=1, rounds=1, wave=60, memory_uploads=4_000, memory_loads=5)
"""Fuzzing has its short form in its own test files, which keep to 20 s by themselves."""
