"""
Servers that somebody wrote down what they say, in the place of a Redis.
"""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def speaking(answer: bytes | Sequence[bytes] | Callable[[bytes], bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """
    A server that gives this answer to everything, or what is answered to it: its URL, and what it was sent.

    Of several pieces each comes a while after the one before.
    """
    heard: list[bytes] = []
    ended = threading.Event()

    def converse(connection: socket.socket) -> None:
        with connection:
            try:
                while told := connection.recv(65536):
                    heard.append(told)
                    said = answer(told) if callable(answer) else answer
                    for piece in [said] if isinstance(said, bytes) else said:
                        connection.sendall(piece)
                        ended.wait(0 if isinstance(said, bytes) else 0.005)
            except OSError:
                pass  # the client hung up

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=converse, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0", heard
        ended.set()
        listening.shutdown(socket.SHUT_RDWR)


ASKED = 4
"""Values asked for per hash: sighting, facts, failure and the mark of having been forgotten."""


def nothing_found(values: int) -> bytes:
    """
    The answer to an MGET of so many keys, none of which is there.
    """
    return b"*%d\r\n" % values + b"$-1\r\n" * values


NO_ANSWERS = {
    "web page": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "noise": b"\x00\xff\xfe\r\n" * 10,
    "number": b":5\r\n",
    "text": b"+OK\r\n",
    "no UTF-8": b"-\xff\xfe\r\n",
    "error": b"-LOADING Redis is loading the dataset in memory\r\n",
    "too few values": nothing_found(ASKED - 1),
    "too many values": nothing_found(ASKED + 1),
    "map": b"%1\r\n+a\r\n+b\r\n",
    "endless array": b"*999999999999\r\n",
}
