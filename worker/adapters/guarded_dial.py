"""
Connections to hosts that an uploader named: resolved once, every address checked, connected to what was checked.

The sockets that are made here keep to the limits of the fetch on every read; see ``fetch_limits.py``. No HTTP lives
here; see ``https_pool.py``.
"""

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from schemas.errors import ErrorCode
from worker.adapters.address_guard import is_public
from worker.adapters.fetch_limits import current, within_limit
from worker.errors import UploadFailed

NO_HOST: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})

Resolve = Callable[[str, int], Sequence[str]]
"""Host and port to numeric addresses, in the order in which to try them; raises ``OSError``."""


class CutOff(ConnectionResetError):
    """
    A peer ended TLS without saying that it does (close_notify): anybody on the way can have cut what came.
    """


class LimitedSocket(socket.socket):
    """
    A socket whose reads keep to the limits of the fetch. Its time-out only ever shrinks within one fetch.
    """

    def recv_into(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401 - passed through as they come
        """
        As ``socket.recv_into``; it is what every buffered read of ``http.client`` ends in.
        """
        self.settimeout(within_limit(self.gettimeout()))
        started_s = time.monotonic()
        return _counted(super().recv_into(*args, **kwargs), started_s)


class LimitedTlsSocket(ssl.SSLSocket):
    """
    The same above TLS.
    """

    def recv_into(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401 - passed through as they come
        """
        As ``SSLSocket.recv_into``. Raises ``CutOff`` where that would say, or let one believe, that all has come.
        """
        self.settimeout(within_limit(self.gettimeout()))
        # By default the standard library takes a connection that was cut for one that was ended.
        self.suppress_ragged_eofs = False
        started_s = time.monotonic()
        try:
            count = super().recv_into(*args, **kwargs)
        except ssl.SSLEOFError as error:
            raise CutOff("TLS ended without close_notify") from error
        return _counted(count, started_s)


def _counted(count: int, started_s: float) -> int:
    spending = current()
    if spending is not None:
        spending.received(count, time.monotonic() - started_s)
    return count


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """
    TLS 1.2 or later with the system's certificate authorities, and those of ``ca_file`` beside them.

    Raises ``OSError`` (``ssl.SSLError`` is one) when the file cannot be read as certificates.
    """
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    # Some builds of Python set it: an end without close_notify would look like any other.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    context.sslsocket_class = LimitedTlsSocket
    return context


def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """
    The addresses that the system's resolver knows.

    Known hole: how long it may take is the resolver's business (``options timeout`` of resolv.conf), not ours; the
    time limit is looked at before and after.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(socket_address[0]) for _, _, _, _, socket_address in found]


@dataclass(frozen=True, slots=True)
class Dialer:
    """
    Opens connections to allowed addresses only. ``allowed`` judges one numeric address.

    ``named`` says of a host and a port whether the operator names them: that such a host has no address may pass.
    """

    resolve: Resolve = resolve_by_system
    allowed: Callable[[str], bool] = is_public
    named: Callable[[str, int], bool] = lambda _host, _port: False

    def connect(self, host: str, port: int, timeout_s: float) -> LimitedSocket:
        """
        A connection to an address of ``host``, tried in order; ``timeout_s`` is for all of them together.

        One address that is not allowed condemns the name, for nobody knows which of its addresses comes next. Raises
        ``UploadFailed``: REF_FORBIDDEN, FETCH_NOT_FOUND, FETCH_UPSTREAM, or FETCH_TIMEOUT.
        """
        addresses = self._checked_addresses(host, port)
        deadline_s = time.monotonic() + timeout_s
        problem: OSError = OSError("no address")
        for position, address in enumerate(addresses):
            # Each address gets its share, so that a dead first one (IPv6, often) leaves time for the next.
            share_s = (deadline_s - time.monotonic()) / (len(addresses) - position)
            try:
                connection = _connected(address, port, max(share_s, 0.001))
            except OSError as error:
                problem = error
                continue
            self._check_peer(connection, host, address)
            return connection
        if isinstance(problem, TimeoutError):
            raise UploadFailed(ErrorCode.FETCH_TIMEOUT, f"no connection to {host}:{port} within {timeout_s} s")
        raise UploadFailed(
            ErrorCode.FETCH_UPSTREAM, f"no connection to {host}:{port}: {problem.strerror or type(problem).__name__}"
        )

    def _check_peer(self, connection: LimitedSocket, host: str, address: str) -> None:
        # Whatever lies between (a transparent proxy of the system, a socket that somebody wrapped): who answers must be
        # who was judged.
        try:
            peer = str(connection.getpeername()[0])
        except OSError as error:
            connection.close()
            raise UploadFailed(ErrorCode.FETCH_UPSTREAM, f"{host} closed the connection as it was made") from error
        if ip_address(peer) != ip_address(address) or not self.allowed(peer):
            connection.close()
            raise UploadFailed(ErrorCode.REF_FORBIDDEN, f"{host}: connected to another address than the one checked")
        spending = current()
        if spending is not None:
            spending.connected.append(peer)

    def _checked_addresses(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = self.resolve(host, port)
        except (OSError, UnicodeError) as error:  # a label that is no IDNA raises the latter
            if _is_no_host(error) and not self.named(host.lower().removesuffix("."), port):
                raise UploadFailed(ErrorCode.FETCH_NOT_FOUND, f"there is no such host as {host}") from error
            raise UploadFailed(ErrorCode.FETCH_UPSTREAM, f"host name {host} does not resolve") from error
        if not addresses:
            raise UploadFailed(ErrorCode.FETCH_UPSTREAM, f"host name {host} has no address")
        if not all(self.allowed(address) for address in addresses):
            raise UploadFailed(
                ErrorCode.REF_FORBIDDEN, f"{host} resolves to an address outside the public Internet, which is refused"
            )
        return addresses


def _is_no_host(error: Exception) -> bool:
    """
    Whether a resolver has answered that there is no such name, or no address of it; and not that it could not tell.
    """
    return isinstance(error, UnicodeError) or (isinstance(error, socket.gaierror) and error.errno in NO_HOST)


def _connected(address: str, port: int, timeout_s: float) -> LimitedSocket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = LimitedSocket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(within_limit(timeout_s))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect((address, port))
        # The TLS handshake that may follow stands under the time-out that the socket has now.
        connection.settimeout(within_limit(timeout_s))
    except BaseException:
        connection.close()
        raise
    return connection
