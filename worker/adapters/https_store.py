"""
Image bytes from ``https://`` addresses: the only module that touches urllib3.

Which addresses may be asked is not here (``address_guard.py``), nor how a connection is made (``guarded_dial.py``).
No proxy of the environment is ever used, and no credentials are sent. Details name the host only: a path may be as
secret as a query.
"""

import logging
import re
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urljoin

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ProtocolError, SSLError
from urllib3.exceptions import TimeoutError as HttpTimeout
from urllib3.util import Url, parse_url

from schemas.errors import ErrorCode
from schemas.uploaded import HttpsRef
from worker import __version__
from worker.adapters.guarded_dial import Dialer, LimitedSocket, time_limit, tls_context
from worker.errors import CannotStart, UploadFailed
from worker.settings.images import FetchSettings

Dial = Callable[[str, int, float], LimitedSocket]

CHUNK_BYTES: Final = 65536
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
WITH_BODY: Final = frozenset({200, 203, 204, 205})
COMPRESSED: Final = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"})
HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": f"touchstone/{__version__}"}
# Hosts that a C library reads as IPv4 numbers; the URL standard says "ends in a number".
_NUMERIC_HOST = re.compile(r"(^|\.)(\d+|0[xX][0-9a-fA-F]*)\.?$")


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


class _PinnedHttpsConnection(HTTPSConnection):
    """
    The same above TLS; the certificate is verified against the name, not against the address.
    """

    def __init__(self, *args: Any, dial: Dial, **kwargs: Any) -> None:  # noqa: ANN401 - urllib3's own arguments
        super().__init__(*args, **kwargs)
        self._dial = dial

    def _new_conn(self) -> LimitedSocket:
        return self._dial(self._dns_host, int(self.port), float(self.timeout or 0))


class _PinnedHttpPool(HTTPConnectionPool):
    ConnectionCls = _PinnedHttpConnection


class _PinnedHttpsPool(HTTPSConnectionPool):
    ConnectionCls = _PinnedHttpsConnection


class HttpsStore:
    """
    Reads images over HTTP GET. Called by many threads at once; connections are kept per host.

    Raises ``CannotStart`` when ``ca_file`` is no readable file of certificates.
    """

    def __init__(self, settings: FetchSettings, *, dialer: Dialer | None = None) -> None:
        self._settings = settings
        if dialer is None:
            dialer = Dialer(allowed=lambda _: True) if settings.allow_private_addresses else Dialer()
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
        self._pools = PoolManager(num_pools=4 * settings.threads, maxsize=settings.threads, ssl_context=context)
        self._pools.pool_classes_by_scheme = {
            "http": partial(_PinnedHttpPool, dial=dialer.connect),  # type: ignore[dict-item]  # urllib3 only calls it
            "https": partial(_PinnedHttpsPool, dial=dialer.connect),  # type: ignore[dict-item]  # urllib3 only calls it
        }

    def read(self, ref: HttpsRef) -> bytes:
        """
        The body at this address, after at most ``max_redirects`` redirects, all within ``total_timeout_s``.

        Raises ``UploadFailed``: EVENT_INVALID, REF_FORBIDDEN, or one of the FETCH codes.
        """
        url = self._checked(ref.url, ErrorCode.EVENT_INVALID)
        with time_limit(self._settings.total_timeout_s):
            for _ in range(self._settings.max_redirects + 1):
                answer = self._ask(url)
                if isinstance(answer, bytes):
                    return answer
                url = answer
        raise UploadFailed(
            ErrorCode.FETCH_REDIRECT, f"{_place(url)}: more than {self._settings.max_redirects} redirects"
        )

    def close(self) -> None:
        """
        Idle connections are closed; those in use close when their fetch ends.
        """
        self._pools.clear()

    def _ask(self, url: Url) -> bytes | Url:
        """
        The body at ``url``, or the checked address to which it redirects.
        """
        try:
            response = self._opened(url)
            try:
                if response.status in REDIRECTS:
                    return self._next_hop(url, response)
                _refuse_unless_body(url, response)
                return self._body(url, response)
            finally:
                # Whatever was not read to its end is closed and not pooled; what was, is back in its pool already.
                response.close()
        except (HttpTimeout, TimeoutError) as error:
            raise UploadFailed(ErrorCode.FETCH_TIMEOUT, f"{_place(url)} did not answer in time") from error
        except SSLError as error:
            raise UploadFailed(ErrorCode.FETCH_UPSTREAM, f"{_place(url)}: {_tls_problem(error)}") from error
        except (HTTPError, OSError, ValueError) as error:
            # ValueError: headers that http.client cannot make sense of. The error's own text may hold the address.
            raise UploadFailed(
                ErrorCode.FETCH_UPSTREAM, f"{_place(url)} broke off or did not speak HTTP ({type(error).__name__})"
            ) from error

    def _opened(self, url: Url) -> BaseHTTPResponse:
        def get() -> BaseHTTPResponse:
            return self._pools.request(
                "GET",
                url.url,
                headers=HEADERS,
                timeout=self._timeout,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )

        try:
            return get()
        except ProtocolError as error:
            if not any(isinstance(cause, ConnectionError) for cause in error.args):
                raise
            # Most likely a kept connection that the server closed at this very moment: not the server's failure.
            return get()

    def _body(self, url: Url, response: BaseHTTPResponse) -> bytes:
        limit = self._settings.max_image_bytes
        declared = response.headers.get("Content-Length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
            raise _too_large(url, f"declares {declared[:20]} bytes", limit)
        body = bytearray()
        while chunk := response.read(CHUNK_BYTES):
            body += chunk
            if len(body) > limit:
                raise _too_large(url, "sends more", limit)
        return bytes(body)

    def _next_hop(self, url: Url, response: BaseHTTPResponse) -> Url:
        location = response.headers.get("Location")
        if not location:
            raise UploadFailed(
                ErrorCode.FETCH_REDIRECT,
                f"{_place(url)} answered {response.status} without saying where to",
                http_status=response.status,
            )
        try:
            target = urljoin(url.url, location)
        except ValueError as error:
            raise UploadFailed(
                ErrorCode.FETCH_REDIRECT, f"{_place(url)} redirects to what is no address", http_status=response.status
            ) from error
        following = self._checked(target, ErrorCode.FETCH_REDIRECT)
        if url.scheme == "https" and following.scheme != "https":
            raise UploadFailed(
                ErrorCode.FETCH_REDIRECT, f"{_place(url)} redirects to plain http", http_status=response.status
            )
        return following

    def _checked(self, text: str, code_if_malformed: ErrorCode) -> Url:
        """
        The address without its fragment, if it is one that may be asked; its host is checked when it is resolved.
        """
        try:
            url = parse_url(text)._replace(fragment=None)
        except (HTTPError, ValueError) as error:
            raise UploadFailed(code_if_malformed, "the reference is no well-formed web address") from error
        if url.scheme != "https" and not (url.scheme == "http" and self._settings.allow_http):
            raise UploadFailed(
                ErrorCode.REF_FORBIDDEN,
                f"scheme {(url.scheme or '')[:16]!r} is refused; use https (or set fetch.allow_http)",
            )
        if not url.host:
            raise UploadFailed(code_if_malformed, "the reference is a web address without a host")
        if url.auth is not None:
            raise UploadFailed(ErrorCode.REF_FORBIDDEN, "the reference carries a user name or password")
        if _NUMERIC_HOST.search(url.host) and not _is_plain_ipv4(url.host):
            raise UploadFailed(ErrorCode.REF_FORBIDDEN, "the host is a number, yet no plain IPv4 address")
        return url


def _refuse_unless_body(url: Url, response: BaseHTTPResponse) -> None:
    """
    Nothing, if the answer carries the image as it is; else ``UploadFailed`` with the code that its status means.
    """
    status = response.status
    if status in WITH_BODY:
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if encoding in COMPRESSED:
            raise UploadFailed(
                ErrorCode.FETCH_UPSTREAM, f"{_place(url)} sent {encoding} although asked for the bytes as they are"
            )
        return
    raise UploadFailed(_code_of(status), f"{_place(url)} answered {status}", http_status=status)


def _code_of(status: int) -> ErrorCode:
    if status in {404, 410}:
        return ErrorCode.FETCH_NOT_FOUND
    if 300 <= status < 400:  # noqa: PLR2004 - 300, 304 and 305 to us, who asked for nothing of the kind
        return ErrorCode.FETCH_REDIRECT
    if 400 <= status < 500 and status not in {408, 425, 429}:  # noqa: PLR2004 - those three say: later
        return ErrorCode.FETCH_DENIED
    return ErrorCode.FETCH_UPSTREAM


def _too_large(url: Url, found: str, limit: int) -> UploadFailed:
    return UploadFailed(ErrorCode.FETCH_TOO_LARGE, f"{_place(url)} {found}; at most {limit} bytes are fetched")


def _tls_problem(error: SSLError) -> str:
    cause = error.args[0] if error.args else error
    message = getattr(cause, "verify_message", None) or getattr(cause, "reason", None) or type(cause).__name__
    return f"TLS failed ({message})"


def _place(url: Url) -> str:
    return f"{url.scheme}://{url.netloc}"


def _is_plain_ipv4(host: str) -> bool:
    try:
        return ip_address(host).version == 4  # noqa: PLR2004 - IPv4
    except ValueError:
        return False
