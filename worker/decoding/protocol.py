"""
What parent and child say to each other: a setup, then one request and one answer for each picture.

Frames of known length, JSON and bare pixels: nothing is unpickled. The child may have been taken over by a picture, so
that the parent bounds every length before it reads, and believes no more than this module checks.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from schemas.errors import ErrorCode, Stage, stage_of
from schemas.verdict import ImageFacts
from worker.domain import ContentHash, PreprocessSpec
from worker.errors import UploadFailed
from worker.stages.decode import DecodeLimits
from worker.views import DecodedPicture, Undecoded, ViewSpec

SETUP: Final = struct.Struct(">4sI")
"""Before the setup: magic, and how many bytes of JSON follow."""

REQUEST: Final = struct.Struct(">4s32sQ")
"""Before a picture: magic, the sha256 of its bytes, and how many there are."""

ANSWER: Final = struct.Struct(">4sIQ")
"""Before an answer: magic, how many bytes of JSON follow, and how many of pixels after them."""

SETUP_MAGIC, REQUEST_MAGIC, ANSWER_MAGIC = b"TSs1", b"TSr1", b"TSa1"
BEGUN: Final = b"TSb1"
"""What a child says when it has read a request and before it decodes: who dies before that, dies of something else."""

HEADER_LIMIT_BYTES: Final = 1 << 20
_ORIENTATIONS: Final = range(1, 9)

LOOKS_PER_FRAME: Final = 2
"""On white, and on grey where much is transparent."""

TOLD_LIMIT: Final = 4096
"""Characters of a fault that are kept: enough for the end of its traceback."""


class Garbled(ValueError):
    """
    What the child said is no answer to what it was asked.
    """


@dataclass(frozen=True, slots=True)
class Setup:
    """
    What a child is told before its first picture: how to decode, and what it may use for it.

    ``memory_bytes`` is the address space beyond that of the program itself; ``cpu_s`` is CPU time for one picture, and
    ``pictures`` how many of them it will be asked for at most. ``device_pixels``: plain JPEGs of up to so many are left
    to a device, and only looked into.
    """

    spec: PreprocessSpec
    limits: DecodeLimits
    views: ViewSpec
    memory_bytes: int
    cpu_s: float
    pictures: int
    perceptual_hash: bool = False
    credentials: bool = False
    trust_anchors_pem: str | None = field(default=None, repr=False)
    device_pixels: int = 0

    def to_json(self) -> bytes:
        """
        For the pipe.
        """
        return _SETUPS.dump_json(self)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """
        From the pipe.
        """
        return _SETUPS.validate_json(data)  # type: ignore[return-value]  # the adapter knows this class alone


_SETUPS: Final[TypeAdapter[Setup]] = TypeAdapter(Setup)


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Hello(_Said):
    """
    A child's first words: where its code lies, or why it cannot decode as it was told.
    """

    package: str
    refused: str | None = None


class Look(_Said):
    """
    One look at a picture: how many crops follow its global view among the pixels, and its statistics.
    """

    native: int
    realism: tuple[float, ...] | None = None


class Failure(_Said):
    """
    Why a picture has no pixels.
    """

    code: ErrorCode
    detail: str


class Answer(_Said):
    """
    What became of one picture: ``facts`` with ``looks``, or a ``failure``, or a ``fault`` that nobody foresaw.

    A JPEG that is left to a device has facts and no looks; so many of its bytes are the JPEG (``jpeg_bytes``).
    ``exhausted``: memory ran out on the way, so that the child should not be asked again.
    """

    facts: ImageFacts | None = None
    looks: tuple[Look, ...] = ()
    jpeg_bytes: int | None = None
    failure: Failure | None = None
    fault: str | None = None
    exhausted: bool = False


def answered(picture: DecodedPicture | Undecoded) -> bytes:
    """
    The frame that answers with a picture.
    """
    if isinstance(picture, Undecoded):
        return told(Answer(facts=picture.facts, jpeg_bytes=picture.jpeg_bytes))
    looks = tuple(Look(native=len(one.native), realism=one.realism) for one in picture.looks)
    arrays = [pixels for one in picture.looks for pixels in (one.pixels, *one.native)]
    return told(Answer(facts=picture.facts, looks=looks), [np.ascontiguousarray(one).data for one in arrays])


def told(answer: _Said, pixels: Sequence[memoryview] = ()) -> bytes:
    """
    The frame of any answer.
    """
    header = answer.model_dump_json().encode()
    prefix = ANSWER.pack(ANSWER_MAGIC, len(header), sum(one.nbytes for one in pixels))
    return b"".join((prefix, header, *pixels))


def lengths_of(prefix: bytes | bytearray) -> tuple[int, int]:
    """
    How many bytes of JSON and of pixels follow. Raises ``Garbled`` for what is no answer or claims too long a header.
    """
    magic, header, body = ANSWER.unpack(prefix)
    if magic != ANSWER_MAGIC or header > HEADER_LIMIT_BYTES:
        raise Garbled(f"an answer begins with {magic!r} and {header} bytes")
    return header, body


def hello_of(header: bytes) -> Hello:
    """
    The first words. Raises ``Garbled``.
    """
    try:
        return Hello.model_validate_json(header)
    except ValidationError as error:
        raise Garbled(_first_error(error)) from error


@dataclass(frozen=True, slots=True)
class Expected:
    """
    What an answer to one request can be, whoever wrote it.
    """

    setup: Setup
    content_hash: ContentHash
    byte_length: int

    def answer(self, header: bytes, body_bytes: int) -> Answer:
        """
        The answer, once it is known to fit: before any pixel of it is read. Raises ``Garbled``.
        """
        try:
            answer = Answer.model_validate_json(header)
        except ValidationError as error:
            raise Garbled(_first_error(error)) from error
        if sum(part is not None for part in (answer.facts, answer.failure, answer.fault)) != 1:
            raise Garbled("want one of facts, failure and fault")
        if answer.failure is not None and stage_of(answer.failure.code) is not Stage.DECODE:
            raise Garbled(f"{answer.failure.code} is no failure of decoding")
        if answer.facts is not None:
            self._check_facts(answer.facts)
        self._check_looks(answer)
        wanted = sum(1 + look.native for look in answer.looks) * self._view_bytes
        if body_bytes != wanted:
            raise Garbled(f"{body_bytes} bytes of pixels are announced, its views have {wanted}")
        return answer

    def picture(self, answer: Answer, body: bytearray) -> DecodedPicture | Undecoded:
        """
        The picture of a checked answer; its arrays can only be read, like those that Pillow gives.
        """
        if answer.jpeg_bytes is not None:
            return Undecoded(_facts(answer), answer.jpeg_bytes)
        size = self.setup.spec.size
        views = np.frombuffer(body, np.uint8).reshape(-1, size, size, 3)
        views.flags.writeable = False
        further: list[DecodedPicture] = []
        end = len(views)
        for look in reversed(answer.looks):
            start = end - 1 - look.native
            pixels, *native = views[start:end]
            end = start
            one = DecodedPicture(pixels, _facts(answer), tuple(native), look.realism)
            further.insert(0, one)
        first, *others = further
        return DecodedPicture(first.pixels, first.facts, first.native, first.realism, tuple(others))

    @property
    def _view_bytes(self) -> int:
        return self.setup.spec.size**2 * 3

    def _check_facts(self, facts: ImageFacts) -> None:
        limits = self.setup.limits
        if (facts.sha256, facts.byte_length) != (self.content_hash, self.byte_length):
            raise Garbled("the facts are those of other bytes")
        if facts.format not in limits.formats:
            raise Garbled(f"format {facts.format!r:.40} was never allowed")
        width, height = facts.width or 0, facts.height or 0
        if width < 1 or height < 1 or width * height > limits.max_pixels:
            raise Garbled(f"{width} by {height} pixels were never allowed")

    def _check_left(self, answer: Answer) -> None:
        """
        A JPEG left to a device is one that may be, whoever says so: the device is given what these numbers say.
        """
        facts, end = answer.facts, answer.jpeg_bytes or 0
        if facts is None or answer.looks or not 0 < end <= self.byte_length:
            raise Garbled(f"{end} bytes of a JPEG without facts or with pixels")
        pixels = (facts.width or 0) * (facts.height or 0)
        if facts.format != "JPEG" or facts.frames_scored != (0,) or pixels > self.setup.device_pixels:
            raise Garbled(f"a {facts.format} of {pixels} pixels was never to be left to a device")
        if facts.orientation not in _ORIENTATIONS:
            raise Garbled(f"orientation {facts.orientation} is none")

    def _check_looks(self, answer: Answer) -> None:
        if answer.jpeg_bytes is not None:
            self._check_left(answer)
            return
        most = LOOKS_PER_FRAME * self.setup.limits.max_frames
        if (answer.facts is None) != (not answer.looks) or len(answer.looks) > most:
            raise Garbled(f"{len(answer.looks)} looks at a picture, where one to {most} go with facts")
        views = self.setup.views
        for look in answer.looks:
            if not 0 <= look.native <= views.native_crops or (look.realism is not None) != views.realism:
                raise Garbled("crops or statistics that were not asked for")


def failed(failure: Failure) -> UploadFailed:
    """
    The failure that an answer tells, in printable characters.
    """
    return UploadFailed(failure.code, printable(failure.detail))


def printable(text: str) -> str:
    """
    The text with every other character blanked: it may end in a terminal.
    """
    return "".join(letter if letter.isprintable() else " " for letter in text[:TOLD_LIMIT])


def _facts(answer: Answer) -> ImageFacts:
    if answer.facts is None:
        raise Garbled("an answer without facts has no picture")
    return answer.facts


def _first_error(error: ValidationError) -> str:
    found: Mapping[str, object] = {**error.errors(include_url=False, include_input=False, include_context=False)[0]}
    return f"{found['msg']} at {found['loc']}"[:200]
