"""
Image bytes from ``https://`` addresses: hop by hop, and what each answer means.

Which addresses may be asked is in ``https_address.py`` and ``address_guard.py``, how a connection is made in
``https_pool.py`` and ``guarded_dial.py``, what is sent to prove who asks in ``https_credentials.py``. Details name the
host only: a path may be as secret as a query.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from schemas.errors import ErrorCode
from schemas.uploaded import HttpsRef
from worker import __version__
from worker.adapters.address_guard import is_public
from worker.adapters.fetch_limits import FetchLimits, Spending, fetch_limits
from worker.adapters.guarded_dial import Dialer
from worker.adapters.host_gates import HostGates
from worker.adapters.https_address import AddressRules, WebAddress, origin, place
from worker.adapters.https_credentials import Credentials, FetchCredentials
from worker.adapters.https_pool import CHUNK_BYTES, FETCH_FAULTS, Answer, PinnedPools, fault_as_failure
from worker.adapters.retry_after import retry_after_s
from worker.adapters.system_clock import SystemClock
from worker.errors import UploadFailed
from worker.ports import Clock
from worker.settings.images import FetchSettings
from worker.telemetry.metrics import InMemoryRecorder

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
WITH_BODY: Final = frozenset({200, 203, 204, 205})
SAYING_WHEN: Final = frozenset({429, 503})
REFUSING: Final = frozenset({401, 403})
FRAMED: Final = frozenset({"", "chunked"})
"""The transfer codings that are read; http.client would hand on any other as if it were the image."""

_COMPRESSORS: Final = ("br", "bzip2", "compress", "deflate", "gzip", "lz4", "lzma", "snappy", "zstd")
COMPRESSING: Final = frozenset(
    {*_COMPRESSORS, *(f"x-{name}" for name in _COMPRESSORS), "brotli", "dcb", "dcz", "sdch", "x-snappy-framed", "xz"}
)
"""
The content codings of a body that is not the image as it is. Hosts send other words there, such as ``aws-chunked`` or
``utf-8``, with the plain image; what is no image behind them is found out by its first bytes.
"""

HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": f"touchstone/{__version__}"}


@dataclass(frozen=True, slots=True)
class Hop:
    """
    One request of a fetch: to which host, at which address if a connection was made for it, and the answer's status.
    """

    place: str
    address: str | None
    status: int


class HttpsStore:
    """
    Reads images over HTTP GET. Called by many threads at once; connections are kept per host.

    ``on_hop`` is told every answer. Raises ``CannotStart`` when ``ca_file`` is no readable file of certificates.
    """

    def __init__(
        self,
        settings: FetchSettings,
        *,
        dialer: Dialer | None = None,
        gates: HostGates | None = None,
        clock: Clock | None = None,
        on_hop: Callable[[Hop], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._limits = FetchLimits.of(settings)
        self._rules = AddressRules(settings.allow_http, settings.allowed_hosts)
        self._credentials = Credentials(settings.http)
        self._clock = clock or SystemClock()
        self._gates = gates or HostGates(settings, clock=self._clock, recorder=InMemoryRecorder())
        self._on_hop = on_hop
        if dialer is None:
            allowed = (lambda _: True) if settings.allow_private_addresses else is_public
            dialer = Dialer(allowed=allowed, named=settings.names_host)
        self._pools = PinnedPools(settings, dialer)

    def read(self, ref: HttpsRef) -> bytes:
        """
        The body at this address, after at most ``max_redirects`` redirects, all within ``total_timeout_s``.

        Raises ``UploadFailed``: EVENT_INVALID, REF_FORBIDDEN, or one of the FETCH codes.
        """
        url = self._rules.checked(ref.url, ErrorCode.EVENT_INVALID)
        credentials = self._credentials.of_fetch(url)
        with fetch_limits(self._limits) as spending:
            for _ in range(self._settings.max_redirects + 1):
                answer = self._ask(url, credentials, spending)
                if isinstance(answer, bytes):
                    return answer
                url = answer
        raise UploadFailed(
            ErrorCode.FETCH_REDIRECT, f"{place(url)}: more than {self._settings.max_redirects} redirects"
        )

    def close(self) -> None:
        """
        Idle connections are closed; those in use close when their fetch ends.
        """
        self._pools.close()

    def _ask(self, url: WebAddress, credentials: FetchCredentials, spending: Spending) -> bytes | WebAddress:
        """
        The body at ``url``, or the checked address to which it redirects.
        """
        _, host, port = origin(url)
        try:
            with self._gates.through(f"{host}:{port}", own=self._settings.names_host(host, port)):
                return self._answer(url, credentials, spending)
        except TimeoutError as error:
            # The hops before this one have used it up.
            raise UploadFailed(ErrorCode.FETCH_TIMEOUT, f"{place(url)} could not be asked in time") from error

    def _answer(self, url: WebAddress, credentials: FetchCredentials, spending: Spending) -> bytes | WebAddress:
        connections = len(spending.connected)
        status: int | None = None
        try:
            ours = credentials.headers_for(url)
            response = self._pools.get(url.url, HEADERS | ours)
            status = response.status
            try:
                address = spending.connected[-1] if len(spending.connected) > connections else None
                self._on_hop(Hop(place(url), address, response.status))
                if response.status in REDIRECTS:
                    return self._rules.redirected(url, response.headers.get("Location"), response.status)
                self._refuse_unless_body(url, response, known=bool(ours))
                return self._body(url, response)
            finally:
                # Whatever was not read to its end is closed and not pooled; what was, is back in its pool already.
                response.close()
        except FETCH_FAULTS as error:
            raise fault_as_failure(error, place(url), status) from error

    def _refuse_unless_body(self, url: WebAddress, response: Answer, *, known: bool) -> None:
        """
        Nothing, if the answer carries the image as it is; else ``UploadFailed`` with the code that its status means.

        ``known``: credentials of ours were sent, so that a refusal speaks of them.
        """
        status = response.status
        if status not in WITH_BODY:
            asked = response.headers.get("Retry-After") if status in SAYING_WHEN else None
            raise UploadFailed(
                ErrorCode.FETCH_UNAUTHORIZED if known and status in REFUSING else _code_of(status),
                f"{place(url)} answered {status}",
                http_status=status,
                retry_after_s=retry_after_s(asked, now_s=self._clock.wall_s()),
            )
        # The header is not told: a host may have written into it what it was sent, credentials included.
        if not COMPRESSING.isdisjoint(_codings(response.headers.get("Content-Encoding", ""))):
            raise UploadFailed(
                ErrorCode.FETCH_UPSTREAM,
                f"{place(url)} sent a compressed body although asked for the bytes as they are",
                http_status=status,
            )
        _refuse_odd_framing(url, response)

    def _body(self, url: WebAddress, response: Answer) -> bytes:
        limit = self._settings.max_image_bytes
        lengths = _lengths(response)
        # Python reads no number of some thousands of digits.
        declared = 0 if lengths is None else int(lengths[0].lstrip("0")[:20] or "0")
        if declared > limit:
            raise _too_large(url, f"declares {declared} bytes", limit)
        endless = lengths is None or bool(response.headers.get("Transfer-Encoding"))
        body = bytearray()
        # http.client knows no end where a length is repeated on one line: it would wait for the host to hang up.
        while chunk := response.read(CHUNK_BYTES if endless else min(CHUNK_BYTES, declared - len(body))):
            body += chunk
            if len(body) > limit:
                raise _too_large(url, "sends more", limit)
        return bytes(body)


def _refuse_odd_framing(url: WebAddress, response: Answer) -> None:
    """
    Nothing, if it is plain where the body ends; else ``UploadFailed``, for parsers disagree about the rest.
    """
    transfer, lengths = response.headers.get("Transfer-Encoding", ""), _lengths(response)
    plain = lengths is None or (len(set(lengths)) == 1 and lengths[0].isascii() and lengths[0].isdigit())
    if transfer.strip().lower() not in FRAMED or not plain:
        raise UploadFailed(
            ErrorCode.FETCH_UPSTREAM,
            f"{place(url)} does not say plainly where its answer ends (Content-Length or Transfer-Encoding)",
            http_status=response.status,
        )


def _lengths(response: Answer) -> list[str] | None:
    """
    Every length that an answer states, on one line or on several; equal ones are one (RFC 9110, section 8.6).
    """
    header = response.headers.get("Content-Length")
    return None if header is None else [length.strip(" \t") for length in header.split(",")]


def _codings(header: str) -> set[str]:
    return {coding.split(";")[0].strip().lower() for coding in header.split(",")}


def _code_of(status: int) -> ErrorCode:
    if status in {404, 410}:
        return ErrorCode.FETCH_NOT_FOUND
    if 300 <= status < 400:  # noqa: PLR2004 - 300, 304 and 305 to us, who asked for nothing of the kind
        return ErrorCode.FETCH_REDIRECT
    if 400 <= status < 500 and status not in {408, 425, 429}:  # noqa: PLR2004 - those three say: later
        return ErrorCode.FETCH_DENIED
    return ErrorCode.FETCH_UPSTREAM


def _too_large(url: WebAddress, found: str, limit: int) -> UploadFailed:
    return UploadFailed(ErrorCode.FETCH_TOO_LARGE, f"{place(url)} {found}; at most {limit} bytes are fetched")
