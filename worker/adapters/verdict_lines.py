"""
Verdicts as text: one JSON verdict into its value, and the lines of a file of verdicts.

Where they lie in Kafka is the business of ``kafka_verdicts.py``. What a newer minor version added is passed over.
"""

import json
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from schemas import SCHEMA_VERSION
from schemas.verdict import ImageVerdictV1
from worker.errors import CannotStart

ReadSoFar = Callable[[int, int], None]
"""Told how much was read, of how much: bytes of a file, offsets of a topic."""

_OURS: Final = SCHEMA_VERSION.partition(".")[0]
_EVERY: Final = 500
_MOST_FAULTS: Final = 3


def verdict_of(value: bytes, *, where: str) -> ImageVerdictV1:
    """
    The verdict that these bytes are, be it of a newer minor version of the contract.

    Raises ``CannotStart``, which names ``where`` and what was found there.
    """
    try:
        verdict = ImageVerdictV1.model_validate_json(value, extra="ignore")
    except ValidationError as invalid:
        raise CannotStart(f"{where}: {_why(value, invalid)}") from None
    if _major(verdict.versions.schema_version) != _OURS:
        raise CannotStart(f"{where}: {_other_contract(verdict.versions.schema_version)}")
    return verdict


def read_verdict_lines(path: Path, *, progress: ReadSoFar = lambda _done, _of: None) -> Iterator[ImageVerdictV1]:
    """
    The verdicts of a file with one per line, as ``touchstone scan --json`` writes it; empty lines are passed over.

    Raises ``CannotStart`` for a file that cannot be read and, with the line's number, for a line that is no verdict.
    """
    done = 0
    try:
        size = path.stat().st_size
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                done += len(line)
                if line.strip():
                    yield verdict_of(line, where=f"{path}, line {number}")
                if number % _EVERY == 0:
                    progress(done, max(size, done))
    except OSError as error:
        raise CannotStart(
            f"{path} cannot be read ({error.strerror}); name a file with one verdict per line, as "
            "`touchstone scan --json` writes it, or a topic as topic:NAME"
        ) from error
    progress(done, done)


def _why(value: bytes, invalid: ValidationError) -> str:
    version = _schema_version(value)
    if version is not None and _major(version) != _OURS:
        return _other_contract(version)
    faults = [
        f"{'.'.join(map(str, error['loc'])) or 'the whole'}: {error['msg']}"
        for error in invalid.errors(include_url=False, include_input=False)
    ]
    told = "; ".join(faults[:_MOST_FAULTS]) + (
        f"; and {len(faults) - _MOST_FAULTS} more" * (len(faults) > _MOST_FAULTS)
    )
    hint = "" if value.endswith((b"\n", b"}")) else " The line is cut off: let the run that writes it finish first."
    return (
        f"found {_shown(value)}, which is no image.verdict.v1 ({told}), expected one verdict as JSON.{hint} "
        "Remove the line, or name another file or topic; verdicts of a newer minor version may need a newer touchstone"
    )


def _other_contract(version: str) -> str:
    return (
        f"found a verdict of schema version {version}, expected {_OURS}.x; only verdicts of one major version can be "
        "read together: write them anew with `touchstone replay`, or use the touchstone that wrote them"
    )


def _schema_version(value: bytes) -> str | None:
    try:
        found = json.loads(value)["versions"]["schema"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def _major(version: str) -> str:
    return version.partition(".")[0]


def _shown(value: bytes) -> str:
    # A beginning of letters is enough to know the line again; a verdict's content stays out of error messages.
    start = "".join(takewhile(str.isprintable, value[:24].decode("utf-8", "replace").strip()))
    return f"{len(value)} bytes that begin with {start!r}"
