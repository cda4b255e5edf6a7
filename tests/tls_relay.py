"""
TLS in front of a server that has none: for the Redis of tests, whose build speaks only in the clear.

Clients meet a real handshake, with certificates on both sides if asked; behind it bytes are passed on as they are.
"""

import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from tests.secured_rig import authority

DEADLINE_S = 60.0
LOOK_S = 0.05


@contextmanager
def tls_in_front_of(port: int, *, asks_for_certificate: bool = False, named: str = "127.0.0.1") -> Iterator[int]:
    """
    The port on which clients are taken while inside; our authority signs for this name, and vouches for clients.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority("ours").issue_cert(named).configure_cert(context)
    if asks_for_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        authority("ours").configure_trust(context)
    closing_down = threading.Event()
    threads: list[threading.Thread] = []

    def accept(listener: socket.socket) -> None:
        while not closing_down.is_set():
            if not select.select([listener], [], [], LOOK_S)[0]:
                continue
            client, _ = listener.accept()
            threads.append(threading.Thread(target=_relay, args=(context, client, port, closing_down)))
            threads[-1].start()

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        accepting = threading.Thread(target=accept, args=(listener,))
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            closing_down.set()
            accepting.join(DEADLINE_S)
            for thread in threads:
                thread.join(DEADLINE_S)


def _relay(context: ssl.SSLContext, client: socket.socket, port: int, closing_down: threading.Event) -> None:
    client.settimeout(DEADLINE_S)
    # A client that breaks off, also in the handshake, is one of the things that are tested.
    with (
        client,
        suppress(OSError),
        context.wrap_socket(client, server_side=True) as secured,
        socket.create_connection(("127.0.0.1", port), DEADLINE_S) as server,
    ):
        while not closing_down.is_set():
            pending = [secured] if secured.pending() else select.select([secured, server], [], [], LOOK_S)[0]
            for readable in pending:
                data = readable.recv(65536)
                if not data:
                    return
                (server if readable is secured else secured).sendall(data)
