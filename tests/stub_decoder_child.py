"""
A decoding child that does what a hostile file might make of one: a program of its own, run like the real one.

Pictures are decoded as ever; what follows ``stub:``, alone or behind a picture, names what happens before.
"""

import ctypes
import json
import os
import resource
import socket
import sys
import time
from pathlib import Path

sys.path.append(sys.argv[1])

from schemas.errors import ErrorCode
from schemas.verdict import ImageFacts
from worker.decoding.child import Decode, open_decoder, serve
from worker.decoding.confinement import drop_descriptors, end_with_parent
from worker.decoding.protocol import ANSWER, ANSWER_MAGIC, Answer, Failure, Look, Setup, told
from worker.domain import ContentHash
from worker.errors import UploadFailed
from worker.views import DecodedPicture

MARK = b"stub:"
FOREVER_S = 1000.0


def crash(name: str) -> None:
    """
    End, or never end, in one of the ways of native code.
    """
    if name == "segfault":
        ctypes.string_at(0)
    elif name == "abort":
        os.abort()
    elif name == "exit":
        os._exit(3)
    elif name == "hang":
        while True:
            pass
    elif name == "sleep":
        time.sleep(FOREVER_S)
    elif name == "close":
        os.close(0)
        time.sleep(FOREVER_S)
    elif name == "abort_for_memory":
        os.write(2, b"memory allocation of 4294967296 bytes failed\n")
        os.abort()


def eat() -> None:
    """
    Take memory until there is none.
    """
    held = []
    while True:
        held.append(bytearray(1 << 26))


def circumstances() -> dict[str, object]:
    """
    What this process may do, as the kernel says.
    """
    libc = ctypes.CDLL(None)
    names = ("AS", "CPU", "NOFILE", "FSIZE", "CORE")
    return {
        "limits": {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names},
        "open": [number for number in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]) if is_open(number)],
        "environment": sorted(os.environ),
        "kept": kept_memory(),
        "no_new_privs": libc.prctl(39, 0, 0, 0, 0),
        "dumpable": libc.prctl(3, 0, 0, 0, 0),
        "own_session": os.getsid(0) == os.getpid(),
        "oom": int(Path("/proc/self/oom_score_adj").read_text(encoding="ascii")),
    }


def kept_memory() -> dict[str, int]:
    """
    Buffers written, freed and asked for again: how many came back at a place of before, and with how many bytes left.
    """
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    mark, at_one_place, left = b"\x5e", 0, 0
    for size in (1 << 12, 1 << 16, 1 << 20, 1 << 23):
        before = [libc.malloc(ctypes.c_size_t(size)) for _ in range(4)]
        for place in before:
            ctypes.memset(place, mark[0], size)
        for place in before:
            libc.free(place)
        after = [libc.malloc(ctypes.c_size_t(size)) for _ in range(4)]
        at_one_place += len({*before} & {*after})
        left += sum(ctypes.string_at(place, size).count(mark) for place in after)
        for place in after:
            libc.free(place)
    return {"at_one_place": at_one_place, "left": left}


def is_open(number: int) -> bool:
    """
    Whether this is a descriptor of something.
    """
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def write() -> None:
    """
    Write to a file in memory: the limit holds for it as for any other.
    """
    os.write(os.memfd_create("loot"), b"loot")


def lie(name: str, setup: Setup, data: bytes, content_hash: ContentHash) -> None:
    """
    Write to the parent what no decoder answers, then wait to be killed.
    """
    facts = ImageFacts(sha256=content_hash, byte_length=len(data), format="PNG", width=9, height=9)
    view = bytes(setup.spec.size**2 * 3)
    honest = told(Answer(facts=facts, looks=(Look(native=0),)), [memoryview(view)])
    other = ImageFacts(**{**facts.model_dump(), "sha256": "f" * 64})
    huge = ImageFacts(**{**facts.model_dump(), "width": 1 << 30})
    written = {
        "garbage": b"\x00\xff" * 200,
        "long_header": ANSWER.pack(ANSWER_MAGIC, 1 << 31, 0),
        "long_body": ANSWER.pack(ANSWER_MAGIC, ANSWER.unpack(honest[: ANSWER.size])[1], 1 << 40)
        + honest[ANSWER.size :],
        "no_json": ANSWER.pack(ANSWER_MAGIC, 4, 0) + b"{{{{",
        "crops": told(Answer(facts=facts, looks=(Look(native=50),)), [memoryview(view * 51)]),
        "frames": told(Answer(facts=facts, looks=(Look(native=0),) * 300), [memoryview(view * 300)]),
        "too_few_pixels": told(Answer(facts=facts, looks=(Look(native=0),)), [memoryview(view[3:])]),
        "other_bytes": told(Answer(facts=other, looks=(Look(native=0),)), [memoryview(view)]),
        "huge": told(Answer(facts=huge, looks=(Look(native=0),)), [memoryview(view)]),
        "other_stage": told(Answer(failure=Failure(code=ErrorCode.FETCH_TIMEOUT, detail="no"))),
        "nothing_said": told(Answer()),
        "short": honest[:-10],
    }[name]
    os.set_blocking(0, True)
    while written:
        written = written[os.write(0, written) :]
    if name == "short":
        os._exit(0)
    time.sleep(FOREVER_S)


def main() -> None:
    """
    As the real program, but for the bytes that name something else.
    """
    end_with_parent(int(sys.argv[2]))
    drop_descriptors()

    def opened(setup: Setup) -> Decode:
        honest = open_decoder(setup).decode

        def decode(data: bytes, content_hash: ContentHash) -> DecodedPicture:
            _, marked, name = data.rpartition(MARK)
            if marked:
                act(name.decode(), setup, data, content_hash)
            return honest(data, content_hash)

        return decode

    with socket.socket(fileno=0) as channel:
        serve(channel, opened)


def act(name: str, setup: Setup, data: bytes, content_hash: ContentHash) -> None:
    """
    What the bytes name; returns where a picture is to be decoded all the same.
    """
    if name == "eat":
        eat()
    elif name == "tell":
        raise UploadFailed(ErrorCode.DECODE_FAILED, json.dumps(circumstances()))
    elif name == "write":
        write()
    elif name == "fault":
        raise RuntimeError("something \x1b[31mnobody foresaw")
    elif name == "shout":
        for _ in range(1000):
            try:
                os.write(2, b"warning: \x1b[31m" * 500)
            except BlockingIOError:
                continue
    elif name == "ask_twice":
        os.write(0, told(Answer(fault="unasked")))
    else:
        crash(name)
        lie(name, setup, data, content_hash)


if __name__ == "__main__":
    main()
