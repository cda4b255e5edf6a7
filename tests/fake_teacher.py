"""
A fitted judgement for tests of banks, to which it is nothing but bytes, and a teacher that fits one in no time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bank_builders import sha
from worker.bank.files import StoredBank
from worker.bank.survey import Progress


@dataclass(frozen=True)
class Fitted:
    """
    Implements ``worker.bank.release.FittedFiles``.
    """

    id: str = sha("fitted")
    version: str = "1"
    files: Mapping[str, bytes] = field(
        default_factory=lambda: {"judgement.json": b'{"a": 1}', "heads.safetensors": b"numbers"}
    )


class FakeTeacher:
    """
    Stands for ``worker.fitting.bank_fit.Teacher``: names the judgement for the number of references.
    """

    def __init__(self, _path: Path, *_calibration: object) -> None:
        self.report: FakeTeacher | None = None
        self.skipped = ()

    def __call__(self, bank: StoredBank, progress: Progress) -> Fitted:
        """
        A judgement named for its bank.
        """
        progress("fitting", 1, 1)
        self.report = self
        return Fitted(id=sha(f"of {len(bank.references())}"), version="9")

    def lines(self) -> tuple[str, ...]:
        """
        What changed, for people.
        """
        return ("loom: recognised 0 % before, 50 % after",)

    def values(self) -> Mapping[str, object]:
        """
        What changed, for machines.
        """
        return {"recognised": 0.5}
