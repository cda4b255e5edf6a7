"""
A small HTTP server for those who watch the worker: each path answers a GET, and nothing changes anything.

What the paths answer is handed over; see ``worker.operation.serving``.
"""

import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Final
from urllib.parse import urlsplit

import structlog

from worker.errors import CannotStart
from worker.flow.crew import Crew

log = structlog.get_logger(__name__)

PATIENCE_S: Final = 5.0
"""How long a client may take to say what it wants, and to take the answer."""

ENDS_S: Final = 0.1
"""How late it sees that it is to stop listening."""

AT_ONCE: Final = 16
"""Requests that are answered at the same time; one more finds its connection closed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What a GET is answered with.
    """

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


Route = Callable[[str | None], Answer]
"""Answers a GET, given its Accept header. Called by the threads of requests, several at once."""


class HttpEndpoints:
    """
    The server and its thread. Raises ``CannotStart`` when it cannot listen there.
    """

    def __init__(self, host: str, port: int, routes: Mapping[str, Route]) -> None:
        try:
            self._server = _Server((host, port), _handler_of(routes))
        except (OSError, OverflowError) as fault:
            raise CannotStart(
                f"http.host {host}, http.port {port}: cannot listen there ({fault}). Is another worker using the port? "
                "Set http.port to another one, or to 0 for any that is free"
            ) from fault
        self._crew = Crew()
        self._crew.start("http", partial(self._server.serve_forever, poll_interval=ENDS_S))

    @property
    def port(self) -> int:
        """
        The port that it listens on.
        """
        port: int = self._server.server_address[1]
        return port

    def close(self) -> None:
        """
        Stop listening; answers that are under way are left to themselves.
        """
        self._server.shutdown()
        self._server.server_close()
        self._crew.join(PATIENCE_S)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._room = threading.BoundedSemaphore(AT_ONCE)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """
        Listen, without asking a name server first what this machine is called, as http.server does.
        """
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: object, client_address: object) -> None:
        """
        Answer in a thread of its own, if there is room for one.
        """
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)  # type: ignore[arg-type] # typeshed knows a socket by another name here
            return
        super().process_request(request, client_address)  # type: ignore[arg-type] # likewise

    def process_request_thread(self, request: object, client_address: object) -> None:
        """
        Answer, and make room.
        """
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type] # likewise
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - the server's signature
        """
        A client that goes away is no event; the traceback of anything else belongs into the log.
        """
        log.debug("http.request_failed", error=type(sys.exception()).__name__)


def _handler_of(routes: Mapping[str, Route]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """
        One request.
        """

        timeout = PATIENCE_S
        server_version = "touchstone"
        sys_version = ""

        def do_GET(self) -> None:
            """
            The route's answer.
            """
            route = routes.get(urlsplit(self.path).path)
            self._answer(_answer_of(route, self.headers.get("Accept"), routes))

        def _refuse(self) -> None:
            self._answer(Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET\n"))

        do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse  # noqa: N815 - likewise

        def _answer(self, answer: Answer) -> None:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("Cache-Control", "no-store")
            if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
                self.send_header("Allow", "GET")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's own name for it
            """
            Scrapes are not told one by one.
            """

    return Handler


def _answer_of(route: Route | None, accept: str | None, routes: Mapping[str, Route]) -> Answer:
    if route is None:
        return Answer(HTTPStatus.NOT_FOUND, f"there are {', '.join(sorted(routes))}\n".encode())
    try:
        return route(accept)
    except Exception as fault:
        log.exception("http.answer_failed", error=type(fault).__name__)
        return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"the log has the traceback\n")
