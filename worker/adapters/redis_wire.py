"""
What is read of a Redis, and for how long: a parser of RESP2 and connections that bound each answer in time and bytes.

redis-py's own time-out holds for each read of the socket, so that an answer that drips never ends, and its parsers keep
whatever size a server announces. What is asked is in the adapters that ask; how an address is read in
``redis_client.py``.
"""

import re
import select
import time
from collections.abc import Iterable
from ssl import SSLWantReadError, SSLWantWriteError
from typing import Any, Final

from redis._parsers import BaseParser
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError, ResponseError

VALUE_LIMIT_BYTES: Final = 1 << 20
"""One value. 32 looks of 9 views each in 1664 dimensions, more than any worker measures, are less."""

ANSWER_LIMIT_BYTES: Final = 16 << 20
"""All that is read of one question's answers, and so, twice, what they take in memory."""

_ITEM_BYTES: Final = 64
"""What every item of an answer counts beside its bytes, as much as the least of them takes in memory."""

_LINE_LIMIT_BYTES: Final = 4096
_NOTHING: Final = b"$-1\r\n"
_VALUE_HEAD: Final = re.compile(rb"\$([0-9]{1,7})\r\n")
_NOT_AT_HAND: Final = object()
_DEEPEST: Final = 2
"""Lists within lists: the answer to SCAN has them."""

_LEAST_BYTES_PER_S: Final = 10_000_000
"""What arrives this fast is waited for: a batch's values are megabytes, which no short time-out lets through."""

_LATE_READS: Final = 1024
"""Reads of what has already arrived when time is up: it is our own process that was late then."""


class AnswerTooLong(RedisError):
    """
    An answer that is larger than anything a worker asks for; its connection is given up.
    """


class BoundedParser(BaseParser):
    """
    Reads answers in RESP2, all of one question's within one time, which grows with them, and one number of bytes.

    Implements redis-py's parser. Raises ``AnswerTooLong``, ``TimeoutError``, ``ConnectionError`` and
    ``InvalidResponse`` of redis-py; after any of them the connection has been given up.
    """

    def __init__(self, socket_read_size: int) -> None:
        self._sock: Any = None
        self._chunk = bytearray(socket_read_size)
        self._buffer = bytearray()
        self._at = 0
        self._left_bytes = 0
        self._late_reads = 0
        self._until_s = 0.0

    def on_connect(self, connection: Any) -> None:  # noqa: ANN401 - redis-py's connection, whichever it is
        """
        Read from this connection from now on.
        """
        self.on_disconnect()
        self._sock = connection._sock  # noqa: SLF001 - as every parser of redis-py does

    def on_disconnect(self) -> None:
        """
        Forget what was not read.
        """
        self._sock = None
        self._buffer = bytearray()
        self._at = 0

    def begin(self, timeout_s: float) -> None:
        """
        A question has just been sent: what is read from now on is its answers.

        They have ``timeout_s``, and so much more as their bytes take at ``_LEAST_BYTES_PER_S``.
        """
        self._until_s = time.monotonic() + timeout_s
        self._left_bytes = ANSWER_LIMIT_BYTES
        self._late_reads = _LATE_READS

    def can_read(self, timeout: float = 0) -> bool:
        """
        Whether there is anything to read, the end included: nobody has asked, so that such a connection is given up.
        """
        if self._sock is None or self._at < len(self._buffer):
            return True
        if hasattr(self._sock, "pending") and self._sock.pending():
            return True
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        return bool(poller.poll(timeout * 1000))

    def read_response(self, disable_decoding: bool = False, timeout: object = None) -> object:  # noqa: ARG002 - redis-py's signature
        """
        The next answer: bytes, a number, None, a list of them, or an error of the server's, which is returned.
        """
        answer = self._item(1)
        if isinstance(answer, RedisConnectionError):
            raise answer
        return answer

    def _item(self, depth: int) -> object:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return None if rest == b"-1" else self._bulk(_number(rest))
        if kind == b"*":
            if rest == b"-1":
                return None
            if depth > _DEEPEST:
                raise InvalidResponse(f"lists more than {_DEEPEST} deep")
            return self._list(_number(rest), depth)
        if kind == b":":
            return -_number(rest[1:]) if rest.startswith(b"-") else _number(rest)
        if kind == b"+":
            return rest
        if kind == b"-":
            return _error(rest.decode(errors="replace"))
        raise InvalidResponse(f"an answer begins with {kind!r}")

    def _list(self, length: int, depth: int) -> list[object]:
        # Not made in advance: the number is the server's word.
        items: list[object] = []
        for _ in range(length):
            found = self._value_at_hand()
            items.append(self._item(depth + 1) if found is _NOT_AT_HAND else found)
        return items

    def _value_at_hand(self) -> object:
        """
        The value or the nothing that comes next, where all of it has been read; a third of the time of ``_item``.

        Anything else, whatever is wrong with it, is left to that.
        """
        buffer, at = self._buffer, self._at
        if buffer.startswith(_NOTHING, at):
            self._spend(_ITEM_BYTES)
            self._at = at + len(_NOTHING)
            return None
        head = _VALUE_HEAD.match(buffer, at)
        if head is None:
            return _NOT_AT_HAND
        begin = head.end()
        end = begin + int(head[1])
        if end - begin > VALUE_LIMIT_BYTES or not buffer.startswith(b"\r\n", end):
            return _NOT_AT_HAND
        self._spend(_ITEM_BYTES)
        self._at = end + 2
        return bytes(memoryview(buffer)[begin:end])

    def _line(self) -> bytes:
        self._spend(_ITEM_BYTES)
        while (end := self._buffer.find(b"\r\n", self._at, self._at + _LINE_LIMIT_BYTES)) < 0:
            if len(self._buffer) - self._at >= _LINE_LIMIT_BYTES:
                raise AnswerTooLong(f"a line of more than {_LINE_LIMIT_BYTES} bytes")
            self._fill()
        line = bytes(self._buffer[self._at : end])
        self._at = end + 2
        return line

    def _bulk(self, length: int) -> bytes:
        if length > VALUE_LIMIT_BYTES:
            raise AnswerTooLong(f"a value of {length} bytes, at most {VALUE_LIMIT_BYTES} are read")
        while len(self._buffer) - self._at < length + 2:
            self._fill()
        end = self._at + length
        value = bytes(self._buffer[self._at : end])
        if self._buffer[end : end + 2] != b"\r\n":
            raise InvalidResponse("a value is longer than was said")
        self._at = end + 2
        return value

    def _fill(self) -> None:
        """
        Read once more. What has arrived is read also when time is up, but waited for no more.
        """
        if self._sock is None:
            raise RedisConnectionError("the connection was given up meanwhile")
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            self._late_reads -= 1
            if self._late_reads < 0:
                raise TimeoutError("the answer did not end in time")
        self._sock.settimeout(max(left_s, 0.0))
        try:
            number = self._sock.recv_into(self._chunk)
        except (BlockingIOError, SSLWantReadError, SSLWantWriteError):
            raise TimeoutError("the answer did not end in time") from None
        if not number:
            raise RedisConnectionError("the server hung up")
        self._spend(number)
        # Bounded with the bytes; what drips gains next to nothing.
        self._until_s += number / _LEAST_BYTES_PER_S
        del self._buffer[: self._at]
        self._at = 0
        self._buffer += memoryview(self._chunk)[:number]

    def _spend(self, number: int) -> None:
        self._left_bytes -= number
        if self._left_bytes < 0:
            raise AnswerTooLong(f"answers of more than {ANSWER_LIMIT_BYTES} bytes to one question")


class _Bounded:
    """
    A connection of redis-py whose answers are bounded; ``BoundedParser`` must be its parser.
    """

    _sock: Any
    _parser: Any
    socket_timeout: Any

    def send_packed_command(self, command: str | Iterable[bytes], check_health: bool = True) -> None:
        """
        Send a question, in one time-out; its answers have another.
        """
        if self._sock is not None:
            # Reading has left there what remained of its own time.
            self._sock.settimeout(self.socket_timeout)
        super().send_packed_command(command, check_health)  # type: ignore[misc]  # of the class beside this one
        self._parser.begin(self.socket_timeout)


class BoundedConnection(_Bounded, Connection):
    """
    Over TCP.
    """


class BoundedTlsConnection(_Bounded, SSLConnection):
    """
    Over TCP and TLS.
    """


class BoundedSocketConnection(_Bounded, UnixDomainSocketConnection):
    """
    Over a socket in the file system.
    """


BOUNDED: Final[dict[type, type]] = {
    Connection: BoundedConnection,
    SSLConnection: BoundedTlsConnection,
    UnixDomainSocketConnection: BoundedSocketConnection,
}


def _number(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > len("9223372036854775807"):
        raise InvalidResponse("a number was expected")
    return int(digits)


def _error(text: str) -> Exception:
    try:
        error: object = BaseParser.parse_error(text)  # type: ignore[no-untyped-call]  # redis-py
    except Exception:  # noqa: BLE001 - redis-py takes apart what some errors say, which is the server's word
        return ResponseError(text)
    return error if isinstance(error, Exception) else ResponseError(text)
