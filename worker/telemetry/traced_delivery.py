"""
The spans of sending and committing, around whatever event source and outbox a worker has.

Both belong to the consumer thread, as what they surround does. A worker that does not trace has neither.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from worker.domain import Partition
from worker.flow.upload_spans import carried_by, carrying
from worker.outcomes import Message, Release
from worker.ports import EventSource, GroupMembership, Outbox, Polled, PositionDone
from worker.spans import Attribute, Span, Tracer

UNACKNOWLEDGED = "unacknowledged"


class TracedSource:
    """
    Implements ``worker.ports.EventSource``: a span ``commit`` for each commit, failed where the group refused it.
    """

    def __init__(self, source: EventSource, tracer: Tracer) -> None:
        self._source = source
        self._tracer = tracer

    def poll(self, *, room: int, wait_s: float) -> Polled:
        """
        As the source does.
        """
        return self._source.poll(room=room, wait_s=wait_s)

    def commit(self, offsets: Mapping[Partition, int]) -> bool:
        """
        As the source does.
        """
        with _commit_span(self._tracer, offsets) as span:
            stored = self._source.commit(offsets)
            if not stored:
                span.fail("REFUSED")
        return stored

    @property
    def exhausted(self) -> bool:
        """
        As the source is.
        """
        return self._source.exhausted

    def close(self) -> None:
        """
        As the source does.
        """
        self._source.close()


class TracedOutbox:
    """
    Implements ``worker.ports.Outbox``: a span ``send <topic>`` for each message, whose context the message carries.

    It begins below the upload's span, which the message carries until then, and ends with the acknowledgement, with
    the transaction, or as unacknowledged when the outbox is closed.
    """

    def __init__(self, outbox: Outbox, tracer: Tracer) -> None:
        self._outbox = outbox
        self._tracer = tracer
        # A partition that went and came back may have the same position under way twice.
        self._sending: dict[PositionDone, deque[list[Span]]] = {}

    def publish(self, releases: Sequence[Release]) -> None:
        """
        As the outbox does.
        """
        traced = []
        for release in releases:
            spans, sent = self._begin(release)
            self._sending.setdefault((release.partition, release.offset), deque()).append(spans)
            traced.append(sent)
        self._outbox.publish(traced)

    def take_acknowledged(self) -> Sequence[PositionDone]:
        """
        As the outbox does.
        """
        acknowledged = self._outbox.take_acknowledged()
        for position in acknowledged:
            spans = self._sending.get(position)
            if spans:
                for span in spans.popleft():
                    span.finish()
            if not spans:
                self._sending.pop(position, None)
        return acknowledged

    def transact(
        self, releases: Sequence[Release], offsets: Mapping[Partition, int], membership: GroupMembership
    ) -> bool:
        """
        As the outbox does. What the group refused is sent again, with spans of its own.
        """
        with ExitStack() as stack:
            spans, traced = [stack.enter_context(_commit_span(self._tracer, offsets))], []
            for release in releases:
                begun, sent = self._begin(release)
                spans += [stack.enter_context(span) for span in begun]
                traced.append(sent)
            done = self._outbox.transact(traced, offsets, membership)
            if not done:
                for span in spans:
                    span.fail("REFUSED")
        return done

    def flush(self, timeout_s: float) -> None:
        """
        As the outbox does.
        """
        self._outbox.flush(timeout_s)

    def close(self) -> None:
        """
        As the outbox does, after which nothing can be acknowledged any more.
        """
        try:
            self._outbox.close()
        finally:
            self.end_all()

    def end_all(self) -> None:
        """
        No acknowledgement will be waited for: its messages may have arrived or not.
        """
        for sent in self._sending.values():
            for span in (span for spans in sent for span in spans):
                span.fail("UNACKNOWLEDGED")
                span.finish(UNACKNOWLEDGED)
        self._sending.clear()

    def _begin(self, release: Release) -> tuple[list[Span], Release]:
        spans, messages = [], []
        for message in release.messages:
            span = self._send_span(message)
            spans.append(span)
            messages.append(carrying(message, span.headers))
        return spans, replace(release, message=messages[0], beside=tuple(messages[1:]))

    def _send_span(self, message: Message) -> Span:
        attributes = {
            "messaging.system": "kafka",
            "messaging.operation.type": "send",
            "messaging.operation.name": "send",
            "messaging.destination.name": message.topic,
        }
        return self._tracer.start(f"send {message.topic}", carried_by(message), kind="producer", attributes=attributes)


def _commit_span(tracer: Tracer, offsets: Mapping[Partition, int]) -> Span:
    attributes: dict[str, Attribute] = {
        "messaging.system": "kafka",
        "messaging.operation.type": "settle",
        "messaging.operation.name": "commit",
        "touchstone.offsets": len(offsets),
    }
    return tracer.start("commit", kind="client", attributes=attributes)
