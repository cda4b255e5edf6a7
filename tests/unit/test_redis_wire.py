"""
What is read of a Redis: no more than a worker can have asked for, and for no longer than its time-out.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError, ResponseError

from worker.adapters import redis_wire
from worker.adapters.redis_wire import ANSWER_LIMIT_BYTES, VALUE_LIMIT_BYTES, AnswerTooLong, BoundedParser

PATIENT_S = 60.0

plain = st.one_of(st.none(), st.binary(max_size=60), st.integers(-(2**63), 2**63 - 1))
answers = st.one_of(plain, st.lists(plain | st.lists(plain, max_size=5), max_size=8))


@contextmanager
def a_parser(*, timeout_s: float = PATIENT_S) -> Iterator[tuple[BoundedParser, socket.socket]]:
    """
    A parser that has just asked something, and the server's end of its connection.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        parser = BoundedParser(65_536)
        parser.on_connect(SimpleNamespace(_sock=ours))
        parser.begin(timeout_s)
        yield parser, theirs


def read(answer: bytes) -> object:
    """
    What is read when just this arrives; behind it the server hangs up.
    """
    with a_parser() as (parser, theirs):
        theirs.settimeout(PATIENT_S)
        sending = threading.Thread(target=_send, args=(theirs, answer), daemon=True)
        sending.start()
        try:
            return parser.read_response()
        finally:
            parser._sock.close()
            sending.join(PATIENT_S)


def _send(to: socket.socket, answer: bytes) -> None:
    try:
        to.sendall(answer)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the reader has hung up


def written(answer: object) -> bytes:
    """
    An answer as a server writes it.
    """
    if answer is None:
        return b"$-1\r\n"
    if isinstance(answer, int):
        return b":%d\r\n" % answer
    if isinstance(answer, bytes):
        return b"$%d\r\n%s\r\n" % (len(answer), answer)
    assert isinstance(answer, list)
    return b"*%d\r\n" % len(answer) + b"".join(map(written, answer))


@given(said=st.lists(answers, min_size=1, max_size=4), cuts=st.lists(st.integers(1, 40), max_size=12))
def test_whatever_a_server_says_is_read_as_it_was_said(said: list[object], cuts: list[int]) -> None:
    """
    Answers behind one another, cut anywhere on their way, are each read whole.
    """
    whole = b"".join(map(written, said))
    with a_parser() as (parser, theirs):
        at = 0
        for cut in cuts:
            theirs.sendall(whole[at : at + cut])
            at += cut
            if at < len(whole):
                parser._fill()
        theirs.sendall(whole[at:])
        heard = [parser.read_response() for _ in said]

        assert said == heard
        assert not parser.can_read()


@given(noise=st.binary(max_size=300) | st.from_regex(rb"([*$:+\-][0-9\-a-zA-Z ]{0,12}\r\n){1,20}", fullmatch=True))
def test_noise_is_an_error_or_an_answer(noise: bytes) -> None:
    """
    Whatever arrives, nothing else is raised than redis-py's own errors.
    """
    with a_parser() as (parser, theirs):
        theirs.sendall(noise)
        theirs.shutdown(socket.SHUT_WR)
        try:
            for _ in range(25):
                parser.read_response()
        except RedisError:
            pass
        else:
            pytest.fail("a server that hung up went on answering")


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"$%d\r\n" % (VALUE_LIMIT_BYTES + 1), AnswerTooLong),
        (b"*2\r\n$1\r\nx\r\n$536870912\r\n", AnswerTooLong),
        (b"+" + b"x" * 5000, AnswerTooLong),
        (b"*999999999999\r\n" + b"$-1\r\n" * 250_000, AnswerTooLong),
        (b"*999999999999\r\n" + b"*0\r\n" * 250_000, AnswerTooLong),
        (b"*17\r\n" + (b"$%d\r\n" % VALUE_LIMIT_BYTES + bytes(VALUE_LIMIT_BYTES) + b"\r\n") * 17, AnswerTooLong),
        (b"*1\r\n*1\r\n*1\r\n:1\r\n", InvalidResponse),
        (b"$3\r\nabcd\r\n", InvalidResponse),
        (b"$x\r\n", InvalidResponse),
        (b":99999999999999999999999\r\n", InvalidResponse),
        (b"%1\r\n+a\r\n+b\r\n", InvalidResponse),
        (b"*2\r\n:1\r\n", RedisConnectionError),
        (b"-ERR max number of clients reached\r\n", RedisConnectionError),
    ],
)
def test_what_no_worker_asked_for_is_refused(answer: bytes, fault: type[Exception]) -> None:
    """
    Values, lines, lists and whole answers that are too large, before they are read, and what is no RESP2.
    """
    with pytest.raises(fault):
        read(answer)


@pytest.mark.parametrize("text", ["WRONGTYPE Operation", "MOVED x", "ASK", "\x00", "NOPERM no"])
def test_errors_of_the_server_are_answers(text: str) -> None:
    """
    They are returned, also those that redis-py would take apart and cannot.
    """
    answer = read(f"-{text}\r\n".encode())

    assert isinstance(answer, ResponseError)


def test_as_much_as_a_worker_asks_for_is_read() -> None:
    """
    Eight of the largest values, or the four thousand answers of a large batch, are no overrun.
    """
    value = bytes(VALUE_LIMIT_BYTES)
    batch: list[object] = [b"x" * 3000, None, b"", None] * 1024

    assert [value] * 8 == read(written([value] * 8))
    assert batch == read(written(batch))
    assert ANSWER_LIMIT_BYTES > len(written(batch))


def test_an_answer_that_drips_ends_with_the_time_out() -> None:
    """
    A byte now and then does not begin the time anew.
    """
    started_s = time.monotonic()
    with a_parser(timeout_s=0.2) as (parser, theirs):
        ended = threading.Event()

        def drip() -> None:
            _send_each(theirs, b"*4\r\n$100000\r\n" + b"x" * 100_000, ended)

        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        with pytest.raises(TimeoutError):
            parser.read_response()
        took_s = time.monotonic() - started_s
        ended.set()
        dripping.join(PATIENT_S)

    assert 0.2 <= took_s < 30


def _send_each(to: socket.socket, answer: bytes, ended: threading.Event) -> None:
    for byte in answer:
        if ended.wait(0.005):
            return
        to.sendall(bytes([byte]))


def test_a_large_answer_has_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Megabytes that keep arriving are waited for past the time-out, as long as they come as fast as any network.
    """
    monkeypatch.setattr(redis_wire, "_LEAST_BYTES_PER_S", 5_000)
    values: list[object] = [b"x" * 10_000] * 10
    whole = written(values)
    with a_parser(timeout_s=0.3) as (parser, theirs):

        def send() -> None:
            pause = threading.Event()
            for at in range(0, len(whole), 10_000):
                theirs.sendall(whole[at : at + 10_000])
                pause.wait(0.06)

        sending = threading.Thread(target=send, daemon=True)
        sending.start()
        started_s = time.monotonic()
        heard = parser.read_response()
        took_s = time.monotonic() - started_s
        sending.join(PATIENT_S)

    assert values == heard
    assert took_s > 0.3


def test_what_has_arrived_is_read_though_time_is_up() -> None:
    """
    Where our own process was late the answer counts; of what never ends only so much is read.
    """
    with a_parser(timeout_s=0) as (parser, theirs):
        theirs.sendall(b"*2\r\n$1\r\nx\r\n:5\r\n")

        assert [b"x", 5] == parser.read_response()
        with pytest.raises(TimeoutError):
            parser.read_response()


def test_a_flood_is_not_read_for_ever_once_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Reads behind the time-out are counted: a server that is always a byte ahead ends as well.
    """
    monkeypatch.setattr(redis_wire, "_LATE_READS", 3)
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        parser = BoundedParser(1)
        parser.on_connect(SimpleNamespace(_sock=ours))
        parser.begin(0)
        theirs.sendall(b"+four\r\n")
        with pytest.raises(TimeoutError):
            parser.read_response()
