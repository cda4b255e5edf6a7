"""
Where a range begins and ends, as one writes it on a command line.
"""

import re
from datetime import UTC, datetime

from worker.errors import ConfigInvalid
from worker.flow.replay_run import Bound

_OFFSET = re.compile(r"[0-9]{1,18}")


def require_forward(since: str | None, until: str | None) -> None:
    """
    The range does not end before it begins, as far as its two words tell by themselves.

    None is the topic's beginning, and its end. An offset and a time are only comparable in the topic. Raises
    ``ConfigInvalid``, naming both options.
    """
    first = parse_bound("beginning" if since is None else since, "--from")
    last = parse_bound("end" if until is None else until, "--to")
    backward = first.kind == "end" and last.kind == "beginning"
    if first.kind == last.kind and first.value is not None and last.value is not None:
        backward = first.value > last.value
    if backward:
        raise ConfigInvalid(
            f"--from {since} lies behind --to {until}; --to is the first upload that is left out, so give a later one"
        )


def parse_bound(text: str, option: str) -> Bound:
    """
    ``beginning``, ``end``, an offset that holds for every partition, or a time in ISO 8601.

    A time without a zone is UTC. Raises ``ConfigInvalid``, naming the option.
    """
    if text in {"beginning", "end"}:
        return Bound("beginning" if text == "beginning" else "end")
    if _OFFSET.fullmatch(text):
        return Bound("offset", int(text))
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigInvalid(
            f"{option} is {text!r}; give an offset such as 120000, a time such as 2026-11-20T08:00:00Z, "
            "`beginning` or `end`"
        ) from None
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return Bound("time", round(aware.timestamp() * 1000))
