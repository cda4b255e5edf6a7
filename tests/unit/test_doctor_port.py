"""
What ``touchstone doctor`` says of the port of the endpoints: free, a worker's, or taken by something else.

A whole worker on it is in tests/loop/test_watched_worker.py.
"""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import pytest

from worker.doctor import port
from worker.doctor.finding import Finding
from worker.operation.serving import config_sha256, serving
from worker.settings.operations import HttpSettings
from worker.settings.tree import Settings
from worker.telemetry.http_endpoints import Answer, HttpEndpoints, Route

HERE = "127.0.0.1"


def at(number: int, host: str = HERE) -> Settings:
    """
    Settings with the endpoints there.
    """
    return Settings(http=HttpSettings(enabled=True, host=host, port=number))


@pytest.fixture
def free_port() -> int:
    """
    A port on which nobody listens.
    """
    with socket.create_server((HERE, 0)) as server:
        number: int = server.getsockname()[1]
    return number


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whoever does not answer is not waited for.
    """
    monkeypatch.setattr(port, "PATIENCE_S", 0.2)


def says(status: HTTPStatus, body: object) -> Route:
    """
    A path that answers so.
    """
    return lambda _accept: Answer(status, json.dumps(body).encode(), "application/json")


def found_over(**paths: Route) -> Finding:
    """
    What is found where a server answers these paths; it holds the port on all addresses.
    """
    server = HttpEndpoints("0.0.0.0", 0, {f"/{path}": route for path, route in paths.items()})  # noqa: S104 - a test
    try:
        return port.http(at(server.port))
    finally:
        server.close()


def worker(live: HTTPStatus = HTTPStatus.OK, ready: HTTPStatus = HTTPStatus.OK, said: str = "ok") -> dict[str, Route]:
    """
    The paths of a worker of other settings.
    """
    health = {"ok": said == "ok", "checks": {"loaded": "ok", "loop": said}}
    return {
        "info": says(HTTPStatus.OK, {"version": "9.8.7", "schema": "1.0", "config_sha256": "ab" * 32}),
        "livez": says(live, health),
        "readyz": says(ready, health),
    }


@contextmanager
def talking(answer: bytes) -> Iterator[int]:
    """
    A port whose holder answers whatever is asked with these bytes, which need not be HTTP.
    """
    with socket.create_server((HERE, 0)) as server:

        def talk() -> None:
            asker, _ = server.accept()
            with asker:
                asker.recv(65536)
                asker.sendall(answer)

        thread = threading.Thread(target=talk)
        thread.start()
        yield server.getsockname()[1]
        thread.join(60)


def test_a_free_port_is_free_afterwards(free_port: int) -> None:
    """
    Asking does not take it; a foreign address fails, and without endpoints nothing is looked at.
    """
    found = [port.http(Settings()), port.http(at(0)), port.http(at(free_port)), port.http(at(free_port))]
    foreign = port.http(at(free_port, "192.0.2.1"))

    assert ["skipped", "ok", "ok", "ok"] == [one.status for one in found]
    assert "failed" == foreign.status
    assert "http.host" in foreign.advice


def test_a_worker_of_these_settings_that_loads_is_a_warning(free_port: int) -> None:
    """
    It holds the port rightly, and is not ready yet: what it waits for is told, with its version.
    """
    settings = at(free_port)
    with serving(settings, instance_id="one"):
        found = port.http(settings)

    assert "warning" == found.status
    assert "a worker answers there, touchstone " in found.text
    assert "of these settings" in found.text
    assert "the model and the bank are being loaded" in found.text


def test_a_ready_worker_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Its version is told and that it is of other settings; no proxy of the environment is asked.
    """
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    found = found_over(**worker())

    assert "ok" == found.status
    assert "touchstone 9.8.7, of other settings, ready" in found.text
    assert "" == found.advice


def test_a_worker_that_does_not_live_fails() -> None:
    """
    What it says is wrong is told, and only that.
    """
    bad = HTTPStatus.SERVICE_UNAVAILABLE
    found = found_over(**worker(live=bad, ready=bad, said="the loop has not turned for 99 s"))

    assert "failed" == found.status
    assert found.text.endswith("it does not live: loop: the loop has not turned for 99 s")
    assert "restart" in found.advice


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (HTTPStatus.OK, {"version": "2.42.0"}),
        (HTTPStatus.OK, {"version": 1, "config_sha256": 2}),
        (HTTPStatus.OK, ["version", "config_sha256"]),
        (HTTPStatus.UNAUTHORIZED, {"version": "1", "config_sha256": "ab"}),
    ],
)
def test_another_server_on_the_port_fails(status: HTTPStatus, body: object) -> None:
    """
    Whatever it says of itself, unless it answers as a worker does.
    """
    found = found_over(info=says(status, body))

    assert "failed" == found.status
    assert f"status {int(status)}, and not as a worker does" in found.text
    assert "http.port" in found.advice


def test_a_server_without_the_path_fails() -> None:
    """
    A web server that knows no /info is not a worker.
    """
    assert "answers GET /info with status 404" in found_over(metrics=says(HTTPStatus.OK, {})).text


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 9999,
        b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe{",
    ],
    ids=["nothing", "no-http", "cut-short", "deep", "no-text"],
)
@pytest.mark.usefixtures("hasty")
def test_what_is_no_answer_of_a_worker_fails(answer: bytes) -> None:
    """
    Nothing that the holder of the port may say breaks the check.
    """
    with talking(answer) as number:
        found = port.http(at(number))

    assert "failed" == found.status
    assert f"{HERE}:{number} is taken by something that" in found.text


@pytest.mark.usefixtures("hasty")
def test_a_holder_that_does_not_answer_fails() -> None:
    """
    It is not waited for without end, and the command that names it is told.
    """
    with socket.create_server((HERE, 0)) as server:
        found = port.http(at(server.getsockname()[1]))

    assert "failed" == found.status
    assert "does not answer GET /info (TimeoutError)" in found.text
    assert "ss -ltnp" in found.advice


def test_the_same_settings_are_told_by_what_info_names() -> None:
    """
    The hash that a worker tells is the one that the doctor compares.
    """
    settings = at(1234)

    assert config_sha256(settings) == config_sha256(at(1234))
    assert config_sha256(settings) != config_sha256(at(1235))
