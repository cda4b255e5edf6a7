"""
Kept connections to web hosts, each made through a dialer: the only module that touches urllib3.

What may be asked, and what an answer means, is not here; see ``https_store.py`` and ``s3_store.py``. No proxy of the
environment is used, no redirect followed and nothing decompressed. Which connections are kept is in ``https_idle.py``.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ProtocolError, SSLError
from urllib3.exceptions import TimeoutError as HttpTimeout

from schemas.errors import ErrorCode
from worker.adapters.fetch_limits import TooMuch, TooSlow, current
from worker.adapters.guarded_dial import CutOff, Dialer, LimitedSocket, tls_context
from worker.adapters.https_idle import IdleConnections
from worker.errors import CannotStart, UploadFailed
from worker.settings.images import FetchSettings

if TYPE_CHECKING:
    # Private, and yet what a pool's methods take and give.
    from urllib3._base_connection import BaseHTTPConnection

Answer = BaseHTTPResponse

Dial = Callable[[str, int, float], LimitedSocket]

CHUNK_BYTES: Final = 65536
KEPT_PER_THREAD: Final = 2
"""Connections that lie idle, over all hosts, for each thread that fetches."""

FETCH_FAULTS: Final = (HTTPError, OSError, ValueError, TooSlow, TooMuch)
"""What reading an answer raises beside ``UploadFailed``; ValueError: headers that http.client makes no sense of."""


class _PinnedHttpConnection(HTTPConnection):
    """
    A connection that resolves and connects through the dialer, and keeps name and SNI as they were.
    """

    def __init__(self, *args: Any, dial: Dial, **kwargs: Any) -> None:  # noqa: ANN401 - urllib3's own arguments
        super().__init__(*args, **kwargs)
        self._dial = dial

    def _new_conn(self) -> LimitedSocket:
        # The one place where urllib3 resolves and connects.
        return self._dial(self._dns_host, int(self.port), float(self.timeout or 0))


class _PinnedHttpsConnection(_PinnedHttpConnection, HTTPSConnection):
    """
    The same above TLS; the certificate is verified against the name, not against the address.
    """


class _KeepingPool(HTTPConnectionPool):
    """
    Keeps no connection itself: urllib3 would keep as many for each host, and for as long as the hosts like.
    """

    def __init__(self, *args: Any, idle: "IdleConnections[BaseHTTPConnection]", **kwargs: Any) -> None:  # noqa: ANN401 - urllib3's own
        super().__init__(*args, **kwargs)
        self._idle = idle

    def _get_conn(self, timeout: float | None = None) -> "BaseHTTPConnection":  # noqa: ARG002 - nobody waits for one here
        return self._idle.taken(self._origin()) or self._new_conn()

    def _put_conn(self, conn: "BaseHTTPConnection | None") -> None:
        if conn is not None:
            self._idle.keep(self._origin(), conn)

    def _origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, int(self.port or 0)


class _PinnedHttpPool(_KeepingPool):
    ConnectionCls = _PinnedHttpConnection


class _PinnedHttpsPool(_KeepingPool, HTTPSConnectionPool):
    ConnectionCls = _PinnedHttpsConnection


class PinnedPools:
    """
    Connections to hosts, kept for the next request, over all hosts two for each thread. Called by many threads at once.

    Raises ``CannotStart`` when ``fetch.ca_file`` is no readable file of certificates.
    """

    def __init__(self, settings: FetchSettings, dialer: Dialer) -> None:
        try:
            context = tls_context(None if settings.ca_file is None else str(settings.ca_file))
        except OSError as error:
            raise CannotStart(
                f"fetch.ca_file {settings.ca_file} could not be read as PEM certificates ({error}); "
                "name a readable file, or leave it out to trust the system's authorities only"
            ) from error
        # urllib3 writes whole addresses, signed queries included, into its own log.
        logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)
        self._timeout = Timeout(connect=settings.connect_timeout_s, read=settings.read_timeout_s)
        self._idle: IdleConnections[BaseHTTPConnection] = IdleConnections(KEPT_PER_THREAD * settings.threads)
        self._pools = PoolManager(num_pools=4 * settings.threads, ssl_context=context)
        ours: dict[str, Any] = {"dial": dialer.connect, "idle": self._idle}
        self._pools.pool_classes_by_scheme = {
            "http": partial(_PinnedHttpPool, **ours),  # type: ignore[dict-item]  # urllib3 only calls it
            "https": partial(_PinnedHttpsPool, **ours),  # type: ignore[dict-item]  # urllib3 only calls it
        }

    def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """
        The head of an answer to GET, its body still to be read and to be closed. Raises ``FETCH_FAULTS``.
        """
        try:
            return self._get(url, headers)
        except ProtocolError as error:
            if not any(isinstance(cause, ConnectionError) for cause in error.args):
                raise
            # Most likely a kept connection that the server closed at this very moment: not the server's failure.
            return self._get(url, headers)

    def close(self) -> None:
        """
        Idle connections are closed; those in use close when their fetch ends.
        """
        self._idle.close()
        self._pools.clear()

    def _get(self, url: str, headers: Mapping[str, str]) -> Answer:
        spending = current()
        if spending is not None:
            spending.next_answer()
        return self._pools.request(
            "GET",
            url,
            headers=headers,
            timeout=self._timeout,
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )


def fault_as_failure(error: Exception, place: str, status: int | None = None) -> UploadFailed:
    """
    What one of ``FETCH_FAULTS`` means; the error's own text may hold the address, so it is not told.

    ``status`` is that of an answer whose head had come: the host lives, though its answer broke off.
    """
    match error:
        case TooSlow():
            return UploadFailed(ErrorCode.FETCH_TOO_SLOW, f"{place} sends too slowly: {error}")
        case TooMuch():
            return UploadFailed(ErrorCode.FETCH_TOO_LARGE, f"{place} sends without end: {error}")
        case HttpTimeout() | TimeoutError():
            return UploadFailed(ErrorCode.FETCH_TIMEOUT, f"{place} did not answer in time")
        case SSLError():
            return UploadFailed(ErrorCode.FETCH_UPSTREAM, f"{place}: {_tls_problem(error)}")
        case _ if any(isinstance(cause, CutOff) for cause in (error, *error.args)):
            why = f"{place}: the answer was cut off, for its TLS ended without close_notify"
            return UploadFailed(ErrorCode.FETCH_UPSTREAM, why, http_status=status)
        case _:
            why = f"{place} broke off or did not speak HTTP ({type(error).__name__})"
            return UploadFailed(ErrorCode.FETCH_UPSTREAM, why, http_status=status)


def _tls_problem(error: SSLError) -> str:
    cause = error.args[0] if error.args else error
    message = getattr(cause, "verify_message", None) or getattr(cause, "reason", None) or type(cause).__name__
    return f"TLS failed ({message})"
