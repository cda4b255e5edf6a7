"""
A web server that does its worst: each fetch ends with its code, within its time, and leaves no connection behind.
"""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import repeat

import pytest

from schemas.errors import ErrorCode
from tests.https_rig import IMAGE, LIMIT_BYTES, RecordingDialer, failure_of, ref
from tests.scripted_web import HOST, Answer, ScriptedWeb, answer, scripted_web
from tests.servers import eventually
from worker.adapters.guarded_dial import Dialer
from worker.adapters.https_store import HttpsStore
from worker.settings.images import FetchSettings

TOTAL_S = 60.0
HURRIED = {ErrorCode.FETCH_TOO_SLOW: {"slow_after_s": 0.3}, ErrorCode.FETCH_TIMEOUT: {"read_timeout_s": 1.0}}
"""What a fetch is given that shall end because of its time."""

BOMB = gzip.compress(bytes(50_000_000))
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CUT = f"Content-Length: {len(IMAGE)}\r\n\r\n".encode()


@pytest.fixture
def web() -> Iterator[ScriptedWeb]:
    """
    A plain web server: what is tested here lies above TLS, and nothing between hides an open connection.
    """
    with scripted_web() as server:
        yield server


@pytest.fixture
def settings() -> FetchSettings:
    """
    Far longer than an answer takes on a busy machine: what is about time sets its own.
    """
    return FetchSettings(
        allow_http=True,
        max_image_bytes=LIMIT_BYTES,
        connect_timeout_s=30,
        read_timeout_s=30,
        total_timeout_s=TOTAL_S,
        slow_after_s=60,
        max_redirects=2,
    )


def without_end(head: bytes, piece: bytes) -> Answer:
    """
    As fast as the connection takes it, until the other side hangs up.
    """

    def parts() -> Iterator[bytes]:
        yield head
        yield from repeat(piece)

    return Answer(parts, keeps_open=False)


Script = Callable[[ScriptedWeb], Answer]

TORTURES: dict[str, tuple[Script, ErrorCode]] = {
    "headers drip": (lambda web: web.dripping(OK + b"X-Slow: ", b"x"), ErrorCode.FETCH_TOO_SLOW),
    "header lines drip": (lambda web: web.dripping(OK, b"X: x\r\n"), ErrorCode.FETCH_TOO_SLOW),
    "body drips": (lambda web: web.dripping(OK + b"Content-Length: 90000\r\n\r\n", b"x"), ErrorCode.FETCH_TOO_SLOW),
    "chunks drip": (lambda web: web.dripping(CHUNKED, b"1\r\nx\r\n"), ErrorCode.FETCH_TOO_SLOW),
    "a chunk's size drips": (lambda web: web.dripping(CHUNKED, b"0"), ErrorCode.FETCH_TOO_SLOW),
    "trailers drip": (lambda web: web.dripping(CHUNKED + b"0\r\n", b"X: x\r\n"), ErrorCode.FETCH_TOO_SLOW),
    "trailers without end": (lambda _: without_end(CHUNKED + b"0\r\n", b"X: x\r\n" * 1000), ErrorCode.FETCH_TOO_LARGE),
    "a chunk's extension without end": (lambda _: without_end(CHUNKED + b"1;", b"x" * 8192), ErrorCode.FETCH_UPSTREAM),
    "another protocol": (
        lambda web: web.dripping(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", b"x"),
        ErrorCode.FETCH_UPSTREAM,
    ),
    "interim answers drip": (lambda web: web.dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), ErrorCode.FETCH_TOO_SLOW),
    "a fast start, then a drip": (
        lambda web: web.dripping(OK + b"Content-Length: 90000\r\n\r\n" + bytes(60_000), b"x"),
        ErrorCode.FETCH_TOO_SLOW,
    ),
    "chunks without end": (
        lambda _: without_end(CHUNKED, b"2000\r\n" + bytes(8192) + b"\r\n"),
        ErrorCode.FETCH_TOO_LARGE,
    ),
    "chunks of one byte without end": (lambda _: without_end(CHUNKED, b"1\r\nx\r\n" * 2000), ErrorCode.FETCH_TOO_LARGE),
    "no length and no end": (lambda _: without_end(OK + b"\r\n", bytes(8192)), ErrorCode.FETCH_TOO_LARGE),
    "interim answers without end": (
        lambda _: without_end(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        ErrorCode.FETCH_TOO_LARGE,
    ),
    "an interim answer with headers without end": (
        lambda _: without_end(b"HTTP/1.1 100 Continue\r\n", b"X: x\r\n" * 1000),
        ErrorCode.FETCH_UPSTREAM,
    ),
    "early hints in place of an answer": (
        lambda _: Answer(lambda: [b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + CUT + IMAGE], keeps_open=False),
        ErrorCode.FETCH_UPSTREAM,
    ),
    "one header without end": (lambda _: without_end(OK + b"X: ", b"x" * 8192), ErrorCode.FETCH_UPSTREAM),
    "headers without end": (lambda _: without_end(OK, b"X: x\r\n" * 1000), ErrorCode.FETCH_UPSTREAM),
    "a length that is more than comes": (
        lambda _: Answer(lambda: [OK + CUT + IMAGE[:-1]], keeps_open=False),
        ErrorCode.FETCH_UPSTREAM,
    ),
    "half closed before the answer": (
        lambda _: Answer(lambda: [b""], keeps_open=False, ends="half_closed"),
        ErrorCode.FETCH_UPSTREAM,
    ),
    "half closed in the body": (
        lambda _: Answer(lambda: [OK + CUT + IMAGE[:99]], keeps_open=False, ends="half_closed"),
        ErrorCode.FETCH_UPSTREAM,
    ),
    "reset before the answer": (
        lambda _: Answer(lambda: [b""], keeps_open=False, ends="reset"),
        ErrorCode.FETCH_UPSTREAM,
    ),
    "reset in the body": (
        lambda _: Answer(lambda: [OK + CUT + IMAGE[:99]], keeps_open=False, ends="reset"),
        ErrorCode.FETCH_UPSTREAM,
    ),
    "reset in a chunk": (
        lambda _: Answer(lambda: [CHUNKED + b"2000\r\nx"], keeps_open=False, ends="reset"),
        ErrorCode.FETCH_UPSTREAM,
    ),
    "a gzip bomb, told": (lambda _: answer(200, BOMB, Content_Encoding="gzip"), ErrorCode.FETCH_UPSTREAM),
    "a gzip bomb in a status": (lambda _: answer(403, BOMB, Content_Encoding="gzip"), ErrorCode.FETCH_DENIED),
    "silence": (lambda web: web.silent(), ErrorCode.FETCH_TIMEOUT),
    "silence in the body": (
        lambda web: web.dripping(OK + CUT + IMAGE[:99], b"", every_s=60),
        ErrorCode.FETCH_TIMEOUT,
    ),
}


@pytest.mark.parametrize(("script", "code"), TORTURES.values(), ids=TORTURES.keys())
def test_every_torture_ends_with_its_code(
    settings: FetchSettings, web: ScriptedWeb, script: Script, code: ErrorCode
) -> None:
    """
    Within the time of a fetch, with one stable code, and no connection stays open for it.
    """
    settings = settings.model_copy(update=HURRIED.get(code, {}))
    web.routes["/worst"] = script(web)
    dialer = RecordingDialer()
    before = set(threading.enumerate())
    started_s = time.monotonic()
    failed = failure_of(HttpsStore(settings, dialer=dialer), web.url("/worst"))
    took_s = time.monotonic() - started_s

    def left_behind() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if "_converse" not in thread.name} - before

    assert code is failed.code
    assert took_s < TOTAL_S / 2
    assert eventually(lambda: not left_behind()), left_behind()  # another test's may have begun just then
    assert len(dialer.made) in {1, 2}
    assert dialer.left_open() == 0


def test_a_gzip_bomb_that_nobody_mentions_stays_small(settings: FetchSettings, web: ScriptedWeb) -> None:
    """
    Bytes that happen to be a compressed file are handed on as they are.
    """
    web.routes["/bomb"] = answer(200, BOMB)

    assert BOMB == HttpsStore(settings, dialer=RecordingDialer()).read(ref(web.url("/bomb")))


def test_a_body_longer_than_it_says_spoils_no_other(settings: FetchSettings, web: ScriptedWeb) -> None:
    """
    What follows the declared length is nobody's: neither this image's nor the next answer's on that connection.
    """
    forged = b"".join(answer(200, b"forged").parts())
    # In one write: what comes later than the next request cannot be told from its answer, and is the same host's word.
    web.routes["/short"] = Answer(lambda: [OK + b"Content-Length: 5\r\n\r\n" + IMAGE[:5] + forged])
    web.routes["/cat.jpg"] = answer(200, IMAGE)
    store = HttpsStore(settings, dialer=RecordingDialer())
    short = store.read(ref(web.url("/short")))

    assert IMAGE[:5] == short
    assert IMAGE == store.read(ref(web.url("/cat.jpg")))


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:a9fe:a9fe::1]/",
        "http://0xa9fea9fe/",
        "http://2852039166/",
        "http://0251.0376.0251.0376/",
        "http://metadata.internal/",
    ],
)
def test_no_redirect_leads_to_the_metadata_address(settings: FetchSettings, web: ScriptedWeb, location: str) -> None:
    """
    However it is written, and nothing is connected to.
    """

    def resolve(host: str, _port: int) -> list[str]:
        named = {HOST: "127.0.0.1", "metadata.internal": "169.254.169.254"}
        return [named.get(host, host.strip("[]"))]

    web.routes["/moved"] = answer(302, Location=location)
    dialer = RecordingDialer(resolve)
    failed = failure_of(HttpsStore(settings, dialer=dialer), web.url("/moved"))

    assert ErrorCode.REF_FORBIDDEN is failed.code
    assert len(dialer.made) == 1


def test_a_resolver_that_changes_its_mind(settings: FetchSettings, web: ScriptedWeb) -> None:
    """
    A name that was public for the first connection and is private for the next is refused then, not remembered.
    """
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    web.routes["/moved"] = Answer(answer(302, Location="/cat.jpg").parts, keeps_open=False)
    dialer = RecordingDialer(lambda *_: next(answers))
    failed = failure_of(HttpsStore(settings, dialer=dialer), web.url("/moved"))

    assert ErrorCode.REF_FORBIDDEN is failed.code
    assert len(web.asked) == 1


def test_two_hosts_that_redirect_to_each_other(settings: FetchSettings, web: ScriptedWeb) -> None:
    """
    The redirects are counted over all hosts.
    """
    web.routes["/ping"] = answer(302, Location=web.url("/pong", host="other.test"))
    web.routes["/pong"] = answer(302, Location=web.url("/ping"))
    failed = failure_of(HttpsStore(settings, dialer=RecordingDialer()), web.url("/ping"))

    assert ErrorCode.FETCH_REDIRECT is failed.code
    assert len(web.asked) == 3


def test_redirects_that_each_take_their_time(settings: FetchSettings, web: ScriptedWeb) -> None:
    """
    All hops together stand under one time limit.
    """
    later = threading.Event()

    def slowly() -> Iterator[bytes]:
        later.wait(0.4)
        yield from answer(302, Location="/again").parts()

    web.routes["/again"] = Answer(slowly)
    short = settings.model_copy(update={"total_timeout_s": 1.0, "max_redirects": 10})
    failed = failure_of(HttpsStore(short, dialer=RecordingDialer()), web.url("/again"))

    assert ErrorCode.FETCH_TIMEOUT is failed.code
    assert 1.0 >= 0.4 * (len(web.asked) - 1)


@pytest.mark.parametrize("noise", [b"", b"\x16\x03\x03\x40\x00", b"x"], ids=["silence", "records", "no TLS"])
def test_tls_that_never_finishes(settings: FetchSettings, noise: bytes) -> None:
    """
    A handshake that drips, or is none, is over with the connect time-out.
    """
    over = threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            while not over.wait(0.02):
                if noise and not sent(connection, noise[:1]):
                    return

    def sent(connection: socket.socket, byte: bytes) -> bool:
        try:
            connection.sendall(byte)
        except OSError:
            return False
        return True

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=(listening,), daemon=True)
        thread.start()
        url = f"https://{HOST}:{listening.getsockname()[1]}/"
        hurried = settings.model_copy(update={"connect_timeout_s": 1.0})
        started_s = time.monotonic()
        failed = failure_of(HttpsStore(hurried, dialer=RecordingDialer()), url)
        took_s = time.monotonic() - started_s
        over.set()
        thread.join(60)

    assert failed.code in {ErrorCode.FETCH_TIMEOUT, ErrorCode.FETCH_UPSTREAM}
    assert took_s < TOTAL_S / 2


def test_who_answers_is_who_was_checked(
    settings: FetchSettings, web: ScriptedWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    When a connection turns out to lead to another address than the one that was checked, nothing is asked there.
    """
    monkeypatch.setattr("worker.adapters.guarded_dial.LimitedSocket.getpeername", lambda _: ("127.0.0.9", 80))
    failed = failure_of(HttpsStore(settings, dialer=Dialer(lambda *_: ["127.0.0.1"], lambda _: True)), web.url("/"))

    assert ErrorCode.REF_FORBIDDEN is failed.code
    assert [] == web.asked
