"""
The seam for spans: what of an upload's way is told to a tracing system, and the side of it that tells nothing.

The side that tells is ``worker/telemetry/tracing.py``. Which spans there are, and when they begin and end, is said in
the flow.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Literal, Protocol, Self

TraceHeaders = tuple[tuple[str, bytes], ...]
"""W3C ``traceparent`` and ``tracestate``, as they stand among a record's headers."""

Kind = Literal["internal", "consumer", "producer", "client"]
Attribute = str | int


class Span(Protocol):
    """
    Something that is under way. Any thread may call; nothing here fails or blocks, nor does it once the span has ended.

    As a context manager it ends with its block; a fault that leaves the block is told as ``fail`` would.
    """

    @property
    def headers(self) -> TraceHeaders:
        """
        What whoever comes after carries on, to belong below this span; nothing where nothing is traced.
        """

    def set(self, name: str, value: Attribute) -> None:
        """
        Say something about it. No URLs, nothing of a user.
        """

    def fail(self, code: str) -> None:
        """
        It ended badly, for the reason with this stable code.
        """

    def finish(self, event: str | None = None) -> None:
        """
        It is over; ``event`` says how, where that is out of the ordinary. Only the first call counts.
        """

    def __enter__(self) -> Self:
        """
        Itself.
        """

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, stack: TracebackType | None
    ) -> None:
        """
        Finish.
        """


class Tracer(Protocol):
    """
    Begins spans. Any thread may call; never fails and never blocks.
    """

    def start(
        self,
        name: str,
        parent: Span | TraceHeaders = (),
        *,
        kind: Kind = "internal",
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Span:
        """
        Begin a span below ``parent``, which may be of another process; headers that are malformed are no parent.
        """

    def gather(self, name: str, of: Sequence[Span]) -> Span:
        """
        Begin a span for what is done to several at once: below none of them, linked to each.
        """


class _Untold:
    __slots__ = ()

    @property
    def headers(self) -> TraceHeaders:
        return ()

    def set(self, name: str, value: Attribute) -> None:
        pass

    def fail(self, code: str) -> None:
        pass

    def finish(self, event: str | None = None) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, stack: TracebackType | None
    ) -> None:
        pass


class _TellingNothing:
    __slots__ = ()

    def start(self, *_: object, **__: object) -> Span:
        return UNTOLD

    def gather(self, *_: object, **__: object) -> Span:
        return UNTOLD


UNTOLD: Final[Span] = _Untold()
"""The one span of a worker that does not trace."""

UNTRACED: Final[Tracer] = _TellingNothing()
"""The tracer of a worker that does not trace."""
