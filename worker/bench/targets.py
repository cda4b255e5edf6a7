"""
What a figure was to be, beside what it came to.

Which figure is held against which number is said where it is measured; here is what that comes to.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """
    One figure and its bound; ``at_least`` says on which side of the bound it is met. ``measured`` None: not measured.

    ``given`` says what the bound was set for, where this run is of something else: then it is told and not judged.
    """

    name: str
    bound: float
    measured: float | None
    at_least: bool = True
    given: str | None = None

    @property
    def met(self) -> bool | None:
        """
        Whether it is; None where nothing was measured, or the bound was set for something else.
        """
        if self.measured is None or self.given is not None:
            return None
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    @property
    def asked(self) -> str:
        """
        The bound with its side.
        """
        return f"{'>=' if self.at_least else '<='} {self.bound:,g}"

    @property
    def verdict(self) -> str:
        """
        In words, for a table.
        """
        if self.measured is None:
            return "not measured"
        if self.given is not None:
            return f"not judged: set for {self.given}"
        return "yes" if self.met else "MISSED"

    def as_object(self) -> dict[str, object]:
        """
        For JSON.
        """
        return {
            "name": self.name,
            "target": self.asked,
            "measured": self.measured,
            "met": self.met,
            "set_for": self.given,
        }
