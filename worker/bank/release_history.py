"""
The steps by which a place of releases came to what it holds: ``history/NNNNNN-STEP.json``, one record each.

Which record holds, and who is believed, is ``worker/bank/releases.py``.
"""

import re
from collections.abc import Iterator
from typing import Final, Literal

from schemas.bank_control import BankControlV1
from worker.bank.release_checks import read_control
from worker.bank.release_place import ReleasePlace
from worker.errors import BankInvalid

HISTORY: Final = "history"

Step = Literal["activate", "rollback", "disable"]
_STEP_FILE: Final = re.compile(r"^(\d{6,})-(activate|rollback|disable)\.json$")


class ReleaseHistory:
    """
    The history in one place. Every method blocks; raises ``CannotStart`` where the place cannot be reached.
    """

    def __init__(self, place: ReleasePlace) -> None:
        self._place = place

    def steps(self) -> list[tuple[str, BankControlV1]]:
        """
        Every step and the state after it, oldest first. Raises ``BankInvalid`` for one that cannot be read.
        """
        found = ((step, name, self._place.read(name)) for _, step, name in self._files())
        return [(step, self._control(name, data)) for step, name, data in found if data is not None]

    def states(self) -> Iterator[BankControlV1]:
        """
        The states that it tells of, newest first; a file of it that cannot be read is passed over.
        """
        for _, _, name in reversed(self._files()):
            try:
                data = self._place.read(name)
                found = None if data is None else self._control(name, data)
            except BankInvalid:
                continue
            if found is not None:
                yield found

    def add(self, step: Step, data: bytes) -> None:
        """
        One more step.
        """
        newest = max((number for number, _, _ in self._files()), default=0)
        self._place.write(f"{HISTORY}/{newest + 1:06d}-{step}.json", data)

    def _files(self) -> list[tuple[int, str, str]]:
        matches = [match for name in self._place.listed(HISTORY) if (match := _STEP_FILE.fullmatch(name))]
        return sorted((int(match[1]), match[2], f"{HISTORY}/{match[0]}") for match in matches)

    def _control(self, name: str, data: bytes) -> BankControlV1:
        return read_control(f"{self._place.name}: {name}", data)
