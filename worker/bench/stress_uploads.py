"""
The uploads of a stress run: events of a run of their own, over pictures that are drawn from a seed or over given data.

Bytes that differ from upload to upload cost a worker all that a new picture costs: a comment in the JPEG makes them so,
and no pixel differs for it.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Final
from uuid import uuid4

from pydantic import ValidationError

from schemas.envelope import EventAttributes, write_binary
from schemas.uploaded import MAX_INLINE_BASE64_CHARS, TYPE, ImageUploadedV1
from worker.adapters.kafka_platform import PublishedEvent
from worker.errors import ConfigInvalid

RUN_PREFIX: Final = "stress"
"""Event ids and generated content ids begin with it: so whoever reads verdicts knows whom to pass over."""

EventOf = Callable[[int], PublishedEvent]
"""The event of an upload by its number, made when it is needed: thousands of pictures would not fit into memory."""

_COMMENT: Final = b"\xff\xfe"
_APP0: Final = b"\xff\xe0"
_ENCODED_AT_ONCE: Final = 3
"""Base64 writes three bytes at a time: what begins at a multiple of it is written as if it stood alone."""


def new_run() -> str:
    """
    A name for a run that no other run has.
    """
    return f"{RUN_PREFIX}-{uuid4().hex[:8]}"


class Commented:
    """
    One JPEG with as many different bytes as are wanted, all of the same pixels.
    """

    def __init__(self, jpeg: bytes) -> None:
        # Behind the first marker where that is the file's format: some readers look for it there.
        at = 4 + int.from_bytes(jpeg[4:6], "big") - 2 if jpeg[2:4] == _APP0 else 2
        self._head = jpeg[:at]
        self._tail = jpeg[at:]
        self._tail_base64 = b64encode(self._tail)

    def with_comment(self, text: str) -> bytes:
        """
        The JPEG with this comment.
        """
        return self._begun(text) + self._tail

    def base64_with_comment(self, text: str) -> bytes:
        """
        The same as base64; only its first bytes are encoded anew.
        """
        return b64encode(self._begun(text)) + self._tail_base64

    def _begun(self, text: str) -> bytes:
        comment = text.encode()
        comment += b" " * (-(len(self._head) + len(_COMMENT) + 2 + len(comment)) % _ENCODED_AT_ONCE)
        return self._head + _COMMENT + (len(comment) + 2).to_bytes(2, "big") + comment


def numbers_of_bytes(count: int, repeated: float, *, seed: int = 0) -> list[int]:
    """
    For each upload the number of the bytes that it shows, below or equal to its own: a share of them was shown before.

    Repetitions are spread evenly, and show any of the earlier bytes.
    """
    random = Random(seed)  # noqa: S311 - drawn to be drawn again, not to be a secret
    numbers: list[int] = []
    shown: list[int] = []
    for number in range(count):
        if shown and int((number + 1) * repeated) > int(number * repeated):
            numbers.append(random.choice(shown))
        else:
            numbers.append(number)
            shown.append(number)
    return numbers


def inline_uploads(run: str, pictures: Sequence[bytes], shown: Sequence[int]) -> EventOf:
    """
    Events that carry their pictures, which take turns; ``shown`` as ``numbers_of_bytes`` tells.

    Raises ``ConfigInvalid`` for pictures that are too large for an event.
    """
    commented = [Commented(one) for one in pictures]
    for one in commented:
        if (size := len(one.base64_with_comment(f"{run}-{len(shown)}"))) > MAX_INLINE_BASE64_CHARS:
            raise ConfigInvalid(
                f"an inline picture may have {MAX_INLINE_BASE64_CHARS} characters of base64, and one of these has "
                f"{size}; choose a smaller --picture, or --ref file with fetch.file_root"
            )

    def event_of(number: int) -> PublishedEvent:
        content_id = f"{run}-{number}"
        encoded = commented[shown[number] % len(commented)].base64_with_comment(f"{run}-{shown[number]}")
        value = b'{"content_id":"%s","image":{"ref":{"kind":"inline","base64":"%s"}}}' % (content_id.encode(), encoded)
        return _event(run, number, content_id, value)

    return event_of


def file_uploads(
    run: str,
    pictures: Sequence[bytes],
    shown: Sequence[int],
    folder: Path,
    *,
    wrote: Callable[[int], None] = lambda _: None,
) -> EventOf:
    """
    Events that name files in ``folder``, which lies below the worker's file root by the name of ``folder`` alone.

    All of them are written now, ``wrote`` being told how many there are. Raises ``OSError``.
    """
    commented = [Commented(one) for one in pictures]
    distinct = sorted(set(shown))
    for done, number in enumerate(distinct, 1):
        data = commented[number % len(commented)].with_comment(f"{run}-{number}")
        (folder / f"{number}.jpg").write_bytes(data)
        wrote(done)

    def event_of(number: int) -> PublishedEvent:
        content_id = f"{run}-{number}"
        data = {
            "content_id": content_id,
            "image": {"ref": {"kind": "file", "path": f"{folder.name}/{shown[number]}.jpg"}},
        }
        return _event(run, number, content_id, json.dumps(data).encode())

    return event_of


def given_uploads(run: str, lines: Iterable[str], *, named: str) -> EventOf:
    """
    Events over the data of the contract's uploads, one JSON object per line, over and over; ids are the run's own.

    Raises ``ConfigInvalid`` with the line of what is no upload, and where there is none.
    """
    given: list[tuple[str, bytes]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            upload = ImageUploadedV1.model_validate_json(line)
        except ValidationError as fault:
            found = fault.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, found["loc"])) or "the line"
            raise ConfigInvalid(
                f"{named}, line {number}: {where}: {found['msg']}; expected the data of an upload event as in "
                '`touchstone schemas`, such as {"content_id": "a", "image": {"ref": {"kind": "https", "url": "..."}}}'
            ) from None
        given.append((upload.content_id, line.strip().encode()))
    if not given:
        raise ConfigInvalid(f"{named} holds no uploads; expected one JSON object per line")

    def event_of(number: int) -> PublishedEvent:
        return _event(run, number, *given[number % len(given)])

    return event_of


def event_id_of(run: str, number: int) -> str:
    """
    The id of the event of this number.
    """
    return f"{run}-{number}"


def _event(run: str, number: int, content_id: str, value: bytes) -> PublishedEvent:
    headers = write_binary(EventAttributes(event_id_of(run, number), f"urn:touchstone:{RUN_PREFIX}", TYPE))
    return PublishedEvent(content_id.encode(), value, headers)
