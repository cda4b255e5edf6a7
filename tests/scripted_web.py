"""
A web server on the loopback that answers each path with exactly the bytes that a test wrote down, well behaved or not.
"""

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import trustme

HOST = "images.test"

Parts = Callable[[], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What is sent, part by part, and whether the connection stays open afterwards, and how it ends if not.

    ``half_closed``: nothing more is sent, yet the connection is held until the server stops. ``notified``: TLS is told
    that this is the end, as it should be and often is not.
    """

    parts: Parts
    keeps_open: bool = True
    ends: Literal["closed", "half_closed", "reset", "notified"] = "closed"


def answer(status: int, body: bytes = b"", *, keeps_open: bool = True, **headers: str) -> Answer:
    """
    A complete, correct answer; ``Content_Type="…"`` becomes the header ``Content-Type``.
    """
    told = {"Content-Length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return Answer(lambda: [f"HTTP/1.1 {status} Told\r\n{head}\r\n".encode() + body], keeps_open)


@dataclass
class ScriptedWeb:
    """
    The server: ``routes`` by path, ``asked`` holds the head of every request, ``connections`` counts what was accepted.

    Without a route the answer is 404. ``stopping`` ends every part that waits for it.
    """

    tls: ssl.SSLContext | None
    routes: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    connections: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def url(self, path: str, *, scheme: str | None = None, host: str = HOST) -> str:
        """
        The address of a path.
        """
        return f"{scheme or ('http' if self.tls is None else 'https')}://{host}:{self.port}{path}"

    def dripping(self, head: bytes, piece: bytes, *, every_s: float = 0.02) -> Answer:
        """
        ``head`` at once, then ``piece`` every 20 ms for ever.
        """

        def parts() -> Iterator[bytes]:
            yield head
            while not self.stopping.wait(every_s):
                yield piece

        return Answer(parts, keeps_open=False)

    def silent(self) -> Answer:
        """
        Nothing at all, on a connection that stays open.
        """

        def parts() -> Iterator[bytes]:
            self.stopping.wait()
            yield from ()

        return Answer(parts, keeps_open=False)

    def serve(self, listening: socket.socket) -> None:
        """
        Accept until the socket is closed, one thread for each connection.
        """
        while not self.stopping.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        try:
            with connection:
                if self.tls is None:
                    self._answer_all(connection)
                else:
                    with self.tls.wrap_socket(connection, server_side=True) as secured:
                        self._answer_all(secured)
        except OSError:
            pass  # the client hung up, as many tests want it to

    def _answer_all(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as reader:
            while head := _request_head(reader):
                self.asked.append(head)
                path = head.split(" ")[1].partition("?")[0]
                told = self.routes.get(path, answer(404))
                for part in told.parts():
                    connection.sendall(part)
                if not told.keeps_open:
                    self._end(connection, told)
                    return

    def _end(self, connection: socket.socket, told: Answer) -> None:
        if told.ends == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif told.ends == "half_closed":
            connection.shutdown(socket.SHUT_WR)
            self.stopping.wait()
        elif told.ends == "notified" and isinstance(connection, ssl.SSLSocket):
            connection.unwrap()


@contextmanager
def scripted_web(tls: ssl.SSLContext | None = None) -> Iterator[ScriptedWeb]:
    """
    A server that runs while inside.
    """
    web = ScriptedWeb(tls)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        web.port = listening.getsockname()[1]
        thread = threading.Thread(target=web.serve, args=(listening,), daemon=True)
        thread.start()
        try:
            yield web
        finally:
            web.stopping.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(60)


def tls_for(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """
    A server's TLS with a certificate for these names.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def _request_head(reader: Iterable[bytes]) -> str:
    lines = []
    for line in reader:
        if not line.strip():
            break
        lines.append(line.decode("latin-1"))
    return "".join(lines)
