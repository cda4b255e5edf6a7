"""
One child as its parent sees it: how it is started, asked, timed and ended. Which child is asked is ``nursery.py``.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import worker
from schemas.errors import ErrorCode
from worker.decoding.protocol import (
    ANSWER,
    BEGUN,
    REQUEST,
    REQUEST_MAGIC,
    SETUP,
    SETUP_MAGIC,
    Answer,
    Expected,
    Garbled,
    Setup,
    hello_of,
    lengths_of,
    printable,
)
from worker.domain import ContentHash
from worker.errors import CannotStart, UploadFailed
from worker.views import DecodedPicture, Undecoded

START_S: Final = 30.0
"""A child is there within 0.3 s; a cold disk and a busy machine may take long."""

LAST_WORDS_BYTES: Final = 4096
_REAP_S: Final = 5.0
_SOCKET_BUFFER_BYTES: Final = 1 << 20
_ENDED_S: Final = 1.0
"""How long a child that has closed its pipe may take to be gone: then its signal is known."""

_PACKAGE: Final = Path(worker.__file__).resolve().parent
# Isolated (-I): neither variables nor the working directory say what is imported. The parent says where our code lies.
_BOOT: Final = "import sys; sys.path.append(sys.argv[1]); from worker.decoding.child import main; main()"
PROGRAM: Final = (sys.executable, "-I", "-c", _BOOT, str(_PACKAGE.parent))

_KEPT_BYTES: Final = 64 << 20
"""
Freed memory that a child keeps for its next picture; what lies beyond goes back to the kernel after each.

Without it the C library gives the buffers of every picture back, and the kernel must find and clear them for the next:
some 4,000 page faults and a quarter of the CPU time for a picture of one megapixel.
"""

_LARGEST_KEPT_BYTES: Final = 32 << 20
"""Single allocations from here on are given back at once; older C libraries accept no more than this."""

_OVERWRITTEN_WITH: Final = 165
"""
What freed memory is filled with, and handed out filled with its complement; any byte but 0 will do.

Else a decoder that reads what it has never written would find in the kept memory what was decoded before. It costs 0.8
ms of a megapixel's 11.
Known hole: the C library fills no pieces of up to a kilobyte, and one other than GNU's heeds none of these variables.
"""

# Nothing of the parent's, which may hold secrets. One thread for each library: children are the parallelism.
_ENVIRONMENT: Final = {
    "LC_ALL": "C.UTF-8",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(_LARGEST_KEPT_BYTES),
    "MALLOC_PERTURB_": str(_OVERWRITTEN_WITH),
    "MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

# What Rust, C++ and Python say of an allocation that failed, before they abort.
_OUT_OF_MEMORY: Final = ("memory allocation of", "bad_alloc", "MemoryError", "annot allocate memory")
_ADVICE: Final = (
    'see that this user may start processes and has memory for them; decode.isolation = "threads" does without, and '
    "a hostile file can then take the worker with it"
)


class DiedIdle(Exception):
    """
    The child was gone, or had lost its manners, before it had a whole request: this picture is not to blame.
    """


class Lost(Exception):
    """
    The child is lost over a picture: ``failure`` is the picture's, ``reason`` one word for the metric.
    """

    def __init__(self, code: ErrorCode, detail: str, *, reason: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self._code = code

    @property
    def failure(self) -> UploadFailed:
        """
        Made anew and not kept: whoever raises it from this loss would else close a circle that holds the image.
        """
        return UploadFailed(self._code, str(self))


class DecoderChild:
    """
    One child. Started by a thread that outlives it, then used by one thread at a time.
    """

    def __init__(self, setup: Setup, program: Sequence[str] = PROGRAM) -> None:
        """
        Start it and wait until it can decode. Raises ``CannotStart``.

        The kernel kills the child when the thread that calls this ends.
        """
        self._setup = setup
        self.gone = threading.Event()
        self.asked = 0
        self.lifetime = setup.pictures
        ours, theirs = socket.socketpair()
        try:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
            self._process = subprocess.Popen(  # noqa: S603 - our own program under our own interpreter
                [*program, str(os.getpid())],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                env=_ENVIRONMENT,
                start_new_session=True,
            )
        except OSError as fault:
            ours.close()
            raise CannotStart(f"a decoder process cannot be started ({fault}); {_ADVICE}") from fault
        finally:
            theirs.close()
        self._pid: int = self._process.pid
        self._channel = ours
        try:
            self._greet()
        except BaseException:
            self.end()
            raise

    @property
    def alive(self) -> bool:
        """
        Whether it has neither been ended nor ended by itself.
        """
        return not self.gone.is_set() and self._process.poll() is None

    @property
    def pid(self) -> int:
        """
        Its process id.
        """
        return self._pid

    def decode(
        self, data: bytes, content_hash: ContentHash, timeout_s: float
    ) -> tuple[Answer, DecodedPicture | Undecoded | None]:
        """
        What the child makes of a picture, within ``timeout_s`` seconds altogether: its answer, with the pixels if any.

        Raises ``DiedIdle`` and ``Lost``; after either the child must be ended.
        """
        deadline_s = time.monotonic() + timeout_s
        self.asked += 1
        self._require_silence()
        try:
            self._send(REQUEST.pack(REQUEST_MAGIC, bytes.fromhex(content_hash), len(data)), deadline_s)
            self._send(data, deadline_s)
            begun = self._receive(len(BEGUN), deadline_s)
        except TimeoutError:
            raise self._too_slow(timeout_s) from None
        except OSError as fault:
            raise DiedIdle(self._ending()) from fault
        if begun != BEGUN:
            raise DiedIdle("spoke without being asked")
        expected = Expected(self._setup, content_hash, len(data))
        try:
            header_bytes, body_bytes = lengths_of(self._receive(ANSWER.size, deadline_s))
            answer = expected.answer(bytes(self._receive(header_bytes, deadline_s)), body_bytes)
            body = self._receive(body_bytes, deadline_s)
        except TimeoutError:
            raise self._too_slow(timeout_s) from None
        except OSError:
            raise self._crashed() from None
        except Garbled as fault:
            detail = f"the decoder process answered what no decoder answers ({printable(str(fault))[:200]})"
            raise Lost(ErrorCode.DECODE_CRASHED, detail, reason="garbled") from fault
        return answer, None if answer.facts is None else expected.picture(answer, body)

    def kill(self) -> None:
        """
        Kill it, from any thread; whoever uses it finds out, and ends it.
        """
        self._process.kill()

    def end(self) -> None:
        """
        Kill it and let go of all that it held; by whoever uses it. Again, nothing.
        """
        if not self.gone.is_set():
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_REAP_S)
            self._channel.close()
            if self._process.stderr is not None:
                self._process.stderr.close()
            self.gone.set()

    def last_words(self) -> str:
        """
        The end of what it wrote to standard error so far, printable; each word is told once.
        """
        if self._process.stderr is None or self._process.stderr.closed:
            return ""
        number = self._process.stderr.fileno()
        os.set_blocking(number, False)
        said = b""
        with contextlib.suppress(OSError):
            # A pipe holds 64 KiB, and what did not fit was never written: this ends, also where it still writes.
            for _ in range(64):
                if not (part := os.read(number, LAST_WORDS_BYTES)):
                    break
                said = (said + part)[-LAST_WORDS_BYTES:]
        return printable(said.decode(errors="replace")).strip()

    def _greet(self) -> None:
        deadline_s = time.monotonic() + START_S
        told = self._setup.to_json()
        try:
            self._send(SETUP.pack(SETUP_MAGIC, len(told)) + told, deadline_s)
            header_bytes, body_bytes = lengths_of(self._receive(ANSWER.size, deadline_s))
            hello = hello_of(bytes(self._receive(header_bytes, deadline_s)))
        except TimeoutError:
            raise CannotStart(f"a decoder process was not ready within {START_S:g} s; {_ADVICE}") from None
        except (OSError, Garbled) as fault:
            told_text = self.last_words()[-300:] or str(fault)
            raise CannotStart(
                f"a decoder process {self._ending()} before it was ready ({told_text}); {_ADVICE}"
            ) from fault
        if hello.refused is not None:
            raise CannotStart(printable(hello.refused))
        if body_bytes or Path(hello.package) != _PACKAGE:
            raise CannotStart(
                f"a decoder process runs the code in {printable(hello.package)}, this one the code in {_PACKAGE}: "
                "install one Touchstone for this interpreter, or run the one that is installed"
            )

    def _require_silence(self) -> None:
        """
        What it says before it is asked would be taken for the answer. Raises ``DiedIdle``, also where it is gone.
        """
        self._channel.setblocking(False)
        try:
            early = self._channel.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError as fault:
            raise DiedIdle(self._ending()) from fault
        raise DiedIdle("spoke without being asked" if early else self._ending())

    def _send(self, data: bytes, deadline_s: float) -> None:
        self._channel.settimeout(_time_left_s(deadline_s))
        self._channel.sendall(data)

    def _receive(self, length: int, deadline_s: float) -> bytearray:
        found = bytearray(length)
        rest = memoryview(found)
        while rest:
            self._channel.settimeout(_time_left_s(deadline_s))
            count = self._channel.recv_into(rest)
            if count == 0:
                raise ConnectionResetError("closed its pipe")
            rest = rest[count:]
        return found

    def _too_slow(self, timeout_s: float) -> Lost:
        return Lost(
            ErrorCode.DECODE_TIMEOUT, f"not decoded within {timeout_s:g} s (decode.timeout_s)", reason="timeout"
        )

    def _crashed(self) -> Lost:
        ending, said = self._ending(), self.last_words()
        if self._process.returncode == -signal.SIGXCPU:
            return Lost(ErrorCode.DECODE_TIMEOUT, "decoding used up its CPU time (decode.timeout_s)", reason="timeout")
        if any(words in said for words in _OUT_OF_MEMORY):
            detail = f"the decoder process {ending} when it could not get more memory (decode.memory_bytes)"
            return Lost(ErrorCode.DECODE_BOMB, detail, reason="out_of_memory")
        return Lost(ErrorCode.DECODE_CRASHED, f"the decoder process {ending} over this picture", reason="crashed")

    def _ending(self) -> str:
        """
        How it ended, in words that follow a subject.
        """
        try:
            code = self._process.wait(_ENDED_S)
        except subprocess.TimeoutExpired:
            return "closed its pipe and went on running"
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"was killed by {name}"


def _time_left_s(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
