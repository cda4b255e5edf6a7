"""
What a handshake tells of a broker that would not answer, against listeners that do one thing each.
"""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.secured_rig import authority, certified, written
from worker.adapters import kafka_handshake
from worker.adapters.kafka_handshake import handshake_fault
from worker.settings.tree import KafkaSettings

DEADLINE_S = 60.0

PASSWORD = {"sasl_password": "p"}
WITH_PASSWORD = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "u"} | PASSWORD
Answer = Callable[[socket.socket], None]


@contextmanager
def listening(answer: Answer) -> Iterator[str]:
    """
    Somebody who answers one connection after the other; the address.
    """
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        closing_down = threading.Event()

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                if closing_down.is_set():
                    return
                # A handshake that the other side breaks off is what is tested.
                with connection, suppress(OSError):
                    connection.settimeout(DEADLINE_S)
                    answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            closing_down.set()
            socket.create_connection(listener.getsockname(), DEADLINE_S).close()
            thread.join(DEADLINE_S)


def tls_answer(*, by: str = "ours", asks_for_certificate: bool = False) -> Answer:
    """
    A listener with a certificate for this machine, which may ask its clients for one.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority(by).issue_cert("127.0.0.1").configure_cert(context)
    if asks_for_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        authority("ours").configure_trust(context)

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)

    return answer


def hangs_up(connection: socket.socket) -> None:
    """
    What a listener of Kafka without TLS does with a handshake, once it has read what it takes for a length.
    """
    connection.recv(4096)


def breaks_off(connection: socket.socket) -> None:
    """
    The connection is reset, for what was sent had not been read.
    """
    connection.recv(1)


def waits_for_the_end(connection: socket.socket) -> None:
    """
    Everything is read and nothing is answered.
    """
    while connection.recv(4096):
        pass


NO_TLS: Final[dict[str, Answer]] = {
    "hangs up": hangs_up,
    "is broken off": breaks_off,
    "speaks HTTP": lambda one: one.sendall(b"HTTP/1.1 400\r\n\r\n"),
}


def told(answer: Answer, folder: Path, **fields: object) -> str:
    """
    What a handshake with this listener tells a client that trusts our authority.
    """
    files = written(certified(), folder)
    chosen: dict[str, object] = {"security_protocol": "SSL", "ssl_cafile": files.cafile, **fields}
    if chosen.pop("shows_certificate", False):
        chosen |= {"ssl_certfile": files.certfile, "ssl_keyfile": files.keyfile}
    with listening(answer) as address:
        return handshake_fault(KafkaSettings.model_validate({"bootstrap_servers": address, **chosen}))


def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    """
    The cause in OpenSSL's words, and the setting that mends it.
    """
    assert "kafka.ssl_cafile" in told(tls_answer(by="others"), tmp_path)


def test_a_certificate_that_is_asked_for(tmp_path: Path) -> None:
    """
    A client without one is told to name one; with one there is nothing to tell.
    """
    assert "kafka.ssl_certfile" in told(tls_answer(asks_for_certificate=True), tmp_path)
    assert "" == told(tls_answer(asks_for_certificate=True), tmp_path, shows_certificate=True)


def test_a_password_is_suspected_where_tls_is_right(tmp_path: Path) -> None:
    """
    kafka-python cannot tell a password that is refused from a broker that is not ready; both are named.
    """
    assert "check kafka.sasl_username" in told(tls_answer(), tmp_path, **WITH_PASSWORD)
    assert "kafka.ssl_cafile" in told(tls_answer(by="others"), tmp_path, **WITH_PASSWORD)


@pytest.mark.parametrize(
    ("sasl", "plain"),
    [({"security_protocol": "SSL"}, "PLAINTEXT or SASL_PLAINTEXT"), (WITH_PASSWORD, "SASL_PLAINTEXT")],
    ids=["SSL", "SASL_SSL"],
)
@pytest.mark.parametrize("answers", ["hangs up", "is broken off", "speaks HTTP"])
def test_a_listener_without_tls(tmp_path: Path, answers: str, sasl: dict[str, str], plain: str) -> None:
    """
    Whoever hangs up, or answers something else, speaks no TLS; the setting is named, its value and what it could be.
    """
    said = told(NO_TLS[answers], tmp_path, **sasl)

    assert "the listener seems to speak no TLS" in said
    assert "kafka.bootstrap_servers" in said
    assert f"set kafka.security_protocol to {plain} instead of {sasl['security_protocol']}" in said


def test_a_listener_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A handshake that nobody answers is told as that, and no password is suspected.
    """
    monkeypatch.setattr(kafka_handshake, "LOOK_S", 0.2)
    said = told(waits_for_the_end, tmp_path, **WITH_PASSWORD)

    assert said.startswith("the TLS handshake was not answered within 0.2 s")
    assert "kafka.sasl_password" not in said


@pytest.mark.parametrize("asks_for_certificate", [False, True])
def test_tls_where_none_is_configured(tmp_path: Path, asks_for_certificate: bool) -> None:
    """
    A plain client is told that the listener speaks TLS, and what to set.
    """
    plain = {"security_protocol": "PLAINTEXT", "ssl_cafile": None}

    assert "set kafka.security_protocol to SSL or SASL_SSL" in told(
        tls_answer(asks_for_certificate=asks_for_certificate), tmp_path, **plain
    )
    assert "" == told(hangs_up, tmp_path, **plain)


def test_nobody_there_is_no_fault_of_tls() -> None:
    """
    Then the time-out is told as it is; addresses that are none are passed over.
    """
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]

    assert "" == handshake_fault(
        KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}, nonsense", security_protocol="SSL")
    )
