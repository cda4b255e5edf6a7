"""
Who vouches for what holds in a place of releases: ed25519 signatures over a control record, and the order of records.

A signature is over every field of ``schemas.bank_control`` but the signatures. It is by the keys of
``worker.bank.signature``, and cannot be taken for one over a manifest. Which records a running worker has seen is
``worker/operation/followed_records.py``.
"""

import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final

from schemas.bank_control import BankControlV1
from worker.bank.signature import SigningKey, key_id, key_ids, signature_holds, signature_line
from worker.errors import BankInvalid

_PURPOSE: Final = b"touchstone bank.control.v1\n"
"""Begins what is signed, so that a signature over a manifest is none over a record."""

_STEP: Final = timedelta(microseconds=1)
_HOW: Final = "activate, roll back or disable with `--key KEYFILE`"


def signed_bytes(control: BankControlV1) -> bytes:
    """
    What is signed of a record: JSON with sorted keys of every field that is not left at its default.

    A field that a later version adds changes nothing in the records that do not have it.
    """
    said = control.model_dump(mode="json", exclude={"signatures"}, exclude_defaults=True)
    said["issued_at"] = control.issued_at.astimezone(UTC).isoformat(timespec="microseconds")
    return _PURPOSE + json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def sign_control(control: BankControlV1, key: SigningKey, *, after: datetime | None = None) -> BankControlV1:
    """
    The record with this key's signature alone, issued later than ``after``: the time of the newest one before it.

    Workers follow no record that is older than one they have seen, so a clock that is behind must not hide a change.
    """
    issued_at = control.issued_at if after is None else max(control.issued_at, after + _STEP)
    timed = control.model_copy(update={"issued_at": issued_at, "signatures": ()})
    line = signature_line(key, signed_bytes(timed))
    return timed.model_copy(update={"signatures": (line.decode(),)})


def require_vouched(where: str, control: BankControlV1, trusted: Collection[str] = ()) -> None:
    """
    Refuse a record with a signature that does not hold, and with ``trusted`` keys one that none of them signed.

    Raises ``BankInvalid``, which begins with ``where`` and names the ids of the keys.
    """
    signers = [_signer(where, control, line) for line in control.signatures]
    if not trusted or set(signers) & set(trusted):
        return
    found = f"by {key_ids(signers)}" if signers else "by nobody"
    raise BankInvalid(
        f"{where} is signed {found}, expected {key_ids(trusted)} (bank.trusted_keys): whoever can write it is not "
        f"believed for that; {_HOW}"
    )


def is_vouched(control: BankControlV1, trusted: Collection[str]) -> bool:
    """
    Whether ``require_vouched`` would let it pass.
    """
    try:
        require_vouched("it", control, trusted)
    except BankInvalid:
        return False
    return True


def _signer(where: str, control: BankControlV1, line: str) -> str:
    _, public, signature = line.split(" ")
    if not signature_holds(public, signature, signed_bytes(control)):
        raise BankInvalid(
            f"{where} has a signature of key {key_id(public)} that does not hold: it was changed after it was signed; "
            f"{_HOW}"
        )
    return public
