"""
What an operator may say when something is activated or disabled: who, why, and which names; how long, of which letters.

Asked before anything is written, so that it is told as a wrong option. What is done with it is in ``releases.py`` and
``quarantine.py``.
"""

import re
from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from schemas.bank_control import BankControlV1
from worker.bank.entries import MAX_WORDS
from worker.bank.leaving_out import Without
from worker.errors import ConfigInvalid

MAX_BY: Final = 128
MAX_REASON: Final = 512
"""As in ``schemas.bank_control``."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SHOWN: Final = 60
"""Characters of what was said that a message repeats."""


def require_sayable(by: str | None, reason: str | None) -> None:
    """
    Refuse a name or a reason that no record can have. Raises ``ConfigInvalid``, which names the option.
    """
    for option, said, most in (("--by", by, MAX_BY), ("--reason", reason, MAX_REASON)):
        if said is None:
            continue
        if len(said) > most:
            raise ConfigInvalid(f"{option} has {len(said)} characters, expected at most {most}; shorten it")
        if not _is_text(said):
            raise ConfigInvalid(f"{option} is {said[:_SHOWN]!r}, which is no UTF-8; write it in letters that are")
    if by is not None and (not by or _CONTROL.search(by)):
        found = "empty" if not by else f"{by[:_SHOWN]!r}, which has a control character"
        raise ConfigInvalid(f"--by is {found}; expected 1 to {MAX_BY} characters on one line, without tabs")


def require_listable(names: Without) -> None:
    """
    Refuse names that no list of what is disabled can have, though a bank may. Raises ``ConfigInvalid``.
    """
    for kind, listed in (("entry", names.entries), ("generator", names.generators), ("source", names.sources)):
        for name in sorted(listed):
            if _CONTROL.search(name) or not _is_text(name):
                raise ConfigInvalid(
                    f"{kind} {name[:_SHOWN]!r} has a control character, which no list of what is disabled can have; "
                    "name its references instead: `--entry` with the id or sha256 of each, which the bank's "
                    "entries.jsonl has"
                )
            if not 0 < len(name) <= MAX_WORDS:
                raise ConfigInvalid(
                    f"{kind} {name[:_SHOWN]!r} has {len(name)} characters, expected 1 to {MAX_WORDS}: no reference has "
                    "such a name; correct it"
                )


def made_control(said: Mapping[str, object]) -> BankControlV1:
    """
    A control record of these fields. Raises ``ConfigInvalid`` where it would not be one, as with too many names.
    """
    try:
        return BankControlV1.model_validate(said)
    except ValidationError as fault:
        first = fault.errors(include_url=False)[0]
        raise ConfigInvalid(
            f"what would hold cannot be written: {'.'.join(map(str, first['loc']))}: {first['msg']}; where too much is "
            "disabled name generators or sources, or publish a bank that was built without these references"
        ) from fault


def _is_text(said: str) -> bool:
    try:
        said.encode()
    except UnicodeEncodeError:
        # Bytes of a command line that are in another encoding.
        return False
    return True
