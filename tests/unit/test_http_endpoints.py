"""
The HTTP server for those who watch: what it answers, and all that it refuses.
"""

import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from tests.scraped import fetched
from worker.errors import CannotStart
from worker.telemetry.http_endpoints import AT_ONCE, Answer, HttpEndpoints


def say(text: str) -> Answer:
    """
    A plain answer.
    """
    return Answer(HTTPStatus.OK, text.encode())


def fail(_accept: str | None) -> Answer:
    """
    A route with a fault.
    """
    raise RuntimeError("secret detail")


@pytest.fixture
def endpoints() -> Iterator[HttpEndpoints]:
    """
    A server with three paths, on a free port.
    """
    server = HttpEndpoints(
        "127.0.0.1",
        0,
        {"/here": lambda _accept: say("yes"), "/accept": lambda accept: say(f"{accept}"), "/broken": fail},
    )
    yield server
    server.close()


def test_a_path_is_answered(endpoints: HttpEndpoints) -> None:
    """
    With whatever the route says, a query or not, and the route hears what the client accepts.
    """
    assert fetched(endpoints.port, "/here") == (200, "yes")
    assert fetched(endpoints.port, "/here?a=b") == (200, "yes")
    assert fetched(endpoints.port, "/accept", headers={"Accept": "text/plain"}) == (200, "text/plain")


def test_an_unknown_path_names_the_known_ones(endpoints: HttpEndpoints) -> None:
    """
    404, and what there is.
    """
    assert fetched(endpoints.port, "/") == (404, "there are /accept, /broken, /here\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nothing_but_get(endpoints: HttpEndpoints, method: str) -> None:
    """
    405, whatever the path: nothing can be changed from here.
    """
    assert fetched(endpoints.port, "/here", method=method) == (405, "only GET\n")


def test_a_fault_is_not_told_to_strangers(endpoints: HttpEndpoints) -> None:
    """
    500, the traceback in the log, and the server goes on.
    """
    status, text = fetched(endpoints.port, "/broken")

    assert status == 500
    assert "secret" not in text
    assert fetched(endpoints.port, "/here") == (200, "yes")


def test_a_port_in_use_is_named(endpoints: HttpEndpoints) -> None:
    """
    The worker does not start, and says which setting to change.
    """
    with pytest.raises(CannotStart, match=rf"http\.port {endpoints.port}: cannot listen.*Set http\.port"):
        HttpEndpoints("127.0.0.1", endpoints.port, {})


def test_a_closed_server_gives_its_port_back() -> None:
    """
    Nothing listens any more, and another may at once.
    """
    first = HttpEndpoints("127.0.0.1", 0, {"/here": lambda _accept: say("first")})
    port = first.port
    assert fetched(port, "/here") == (200, "first")
    first.close()
    second = HttpEndpoints("127.0.0.1", port, {"/here": lambda _accept: say("second")})

    assert fetched(port, "/here") == (200, "second")
    second.close()


def test_clients_that_say_nothing_do_not_pile_up(endpoints: HttpEndpoints) -> None:
    """
    Only so many connections are served at once; one more is closed, and their threads with theirs.
    """
    others = set(threading.enumerate())
    silent = [socket.create_connection(("127.0.0.1", endpoints.port), timeout=60) for _ in range(AT_ONCE)]
    one_more = socket.create_connection(("127.0.0.1", endpoints.port), timeout=60)

    assert one_more.recv(1) == b""
    ours = set(threading.enumerate()) - others
    assert sum("process_request_thread" in thread.name for thread in ours) <= AT_ONCE
    for connection in (*silent, one_more):
        connection.close()
