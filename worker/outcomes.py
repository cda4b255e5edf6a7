"""
How an upload ends, and what is published of it: the last values on the way, in the order in which they arise.
"""

from dataclasses import dataclass, field

from schemas.dead_letter import ImageDeadLetterV1
from schemas.errors import ErrorCode
from schemas.verdict import ImageVerdictV1
from worker.domain import EventIdentity, Origin, Partition, RawEvent


@dataclass(frozen=True, slots=True)
class VerdictIssued:
    """
    The terminal outcome of a readable upload; with ``letter`` where an operator may mend what made it fail.
    """

    key: bytes
    identity: EventIdentity
    verdict: ImageVerdictV1
    letter: ImageDeadLetterV1 | None = None


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """
    The terminal outcome of a record that is no upload event.
    """

    key: bytes | None
    dead_letter: ImageDeadLetterV1
    trace: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Deferred:
    """
    No end yet: an upload that failed for a reason which time may mend, to be tried again from a retry topic.

    ``step`` says which of the retry topics, from 0; ``not_before_s`` (since the epoch) when it may be tried at the
    earliest.
    """

    raw: RawEvent
    origin: Origin
    code: ErrorCode
    step: int
    not_before_s: float


Outcome = VerdictIssued | DeadLettered | Deferred


@dataclass(frozen=True, slots=True)
class Message:
    """
    An outcome, serialised for the topic it belongs to.
    """

    topic: str
    key: bytes | None
    value: bytes = field(repr=False)
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Release:
    """
    A message that its partition's line has released, with the position that it answers.

    ``beside`` are published behind it, in order: the position is answered once all of them are acknowledged.
    """

    partition: Partition
    offset: int
    message: Message
    beside: tuple[Message, ...] = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        """
        All of them, in their order.
        """
        return (self.message, *self.beside)
