"""
Which records of what holds a running worker believes: of its bank, signed where keys are trusted, none played again.

What a signature is over is ``worker.bank.control_signature``; following a record is ``bank_watch.py``.
"""

from schemas.bank_control import BankControlV1
from worker.bank.releases import Releases
from worker.errors import BankInvalid


class FollowedRecords:
    """
    The newest record that was believed, from the start on. One for a watch, used by one thread.

    A worker that starts knows of none before: it believes any record that is signed, however old.
    """

    def __init__(self, releases: Releases, first: BankControlV1, *, signed: bool) -> None:
        self._releases = releases
        self._newest = first
        self._signed = signed

    def require_believed(self, control: BankControlV1) -> None:
        """
        Refuse a record that is of another bank or signed by nobody who is trusted. Raises ``BankInvalid``.

        Where records are signed, one is refused too that was issued before one that was believed.
        """
        self._releases.require_vouched(control)
        if control.bank != self._newest.bank:
            raise BankInvalid(
                f"it is of bank {control.bank!r}, this worker judges by bank {self._newest.bank!r}: verdicts would "
                "answer another question; restart the workers if this is meant"
            )
        if not self._signed:
            return
        if control.issued_at < self._newest.issued_at:
            raise BankInvalid(
                f"it was signed at {control.issued_at.isoformat()}, and one of {self._newest.issued_at.isoformat()} is "
                "known: an older record was put back. To go back to what it says, run `touchstone bank activate` or "
                "`rollback` with `--key`"
            )
        self._newest = control
