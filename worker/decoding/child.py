"""
The child program: a decoder behind standard input, which is a socket to the parent, until that is closed.

It imports the decode stage and the libraries that it may ask, each only where the setup wants it: no torch (of its
libraries one, where a spec resizes with it), no Kafka, no settings. The side that talks to it is ``child_process.py``.
"""

import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import worker
from schemas.errors import ErrorCode
from worker.decoding.confinement import allow_cpu, confine, drop_descriptors, end_with_parent
from worker.decoding.protocol import (
    BEGUN,
    REQUEST,
    REQUEST_MAGIC,
    SETUP,
    SETUP_MAGIC,
    TOLD_LIMIT,
    Answer,
    Failure,
    Hello,
    Setup,
    answered,
    told,
)
from worker.domain import ContentHash
from worker.errors import CannotStart, UploadFailed
from worker.stages.decode import CredentialsReader, PerceptualHash, PillowDecoder, RealismStatistics
from worker.stages.left_to_device import LeavingJpegs
from worker.stages.preprocess import Resizer
from worker.views import DecodedPicture, Undecoded

Decode = Callable[[bytes, ContentHash], DecodedPicture | Undecoded]

PACKAGE: Final = str(Path(worker.__file__).resolve().parent)
"""Where this code lies: parent and child must be one version."""

_OUT_OF_MEMORY: Final = ("out of memory", "outofmemory", "insufficient memory", "cannot allocate", "bad_alloc")


def open_decoder(setup: Setup) -> PillowDecoder:
    """
    The decoder that was asked for, with the memory that its libraries keep. Raises ``CannotStart``.
    """
    perceptual_hash: PerceptualHash | None = None
    statistics: RealismStatistics | None = None
    credentials: CredentialsReader | None = None
    resizer: Resizer | None = None
    if setup.perceptual_hash:
        from worker.adapters import perceptual_hash as hashing  # noqa: PLC0415 - only where it is wanted

        perceptual_hash = hashing.pdq
        hashing.take_memory()
    if setup.views.realism:
        from worker.adapters import realism_statistics  # noqa: PLC0415 - OpenCV, only where it is wanted

        statistics = realism_statistics.statistics
    if setup.spec.resize == "torch":
        from worker.adapters.torch_resize import open_resizer  # noqa: PLC0415 - a library of torch's, likewise

        resizer = open_resizer()
    if setup.credentials:
        from worker.adapters.content_credentials import credentials_reader  # noqa: PLC0415 - likewise the C2PA library

        credentials = credentials_reader(setup.trust_anchors_pem)
    return PillowDecoder(
        setup.spec,
        setup.limits,
        perceptual_hash,
        views=setup.views,
        statistics=statistics,
        credentials=credentials,
        resizer=resizer,
    )


def open_decode(setup: Setup) -> Decode:
    """
    What answers requests: the decoder, or one that leaves plain JPEGs to a device. Raises ``CannotStart``.
    """
    decoder = open_decoder(setup)
    if not setup.device_pixels:
        return decoder.decode
    return LeavingJpegs(decoder, setup.limits, decoder.credentials, setup.device_pixels).decode


def main() -> None:
    """
    Decode what the parent sends, until it closes its end. Arguments: where the code lies, and the parent's process id.
    """
    end_with_parent(int(sys.argv[2]))
    drop_descriptors()
    with socket.socket(fileno=0) as channel:
        serve(channel, open_decode)


def serve(channel: socket.socket, opened: Callable[[Setup], Decode]) -> None:
    """
    Setup, hello, then one answer to each request; returns when the parent has closed its end.
    """
    setup = _setup(channel)
    if setup is None:
        return
    try:
        decode = opened(setup)
    except CannotStart as refusal:
        channel.sendall(told(Hello(package=PACKAGE, refused=str(refusal))))
        return
    confine(memory_bytes=setup.memory_bytes, cpu_s=setup.cpu_s * setup.pictures)
    channel.sendall(told(Hello(package=PACKAGE)))
    for data, content_hash in _requests(channel):
        allow_cpu(setup.cpu_s)
        channel.sendall(BEGUN)
        channel.sendall(answer_to(decode, data, content_hash))


def answer_to(decode: Decode, data: bytes, content_hash: ContentHash) -> bytes:
    """
    The answer's frame, whatever decoding comes to.
    """
    try:
        return answered(decode(data, content_hash))
    except UploadFailed as failure:
        if _is_for_memory(failure):
            return told(_too_much())
        return told(Answer(failure=Failure(code=failure.code, detail=failure.detail)))
    except Exception as fault:  # noqa: BLE001 - told to the parent, which logs it and knows whose it is
        if _is_for_memory(fault):
            return told(_too_much())
        return told(Answer(fault=f"{type(fault).__name__}\n{traceback.format_exc()[-TOLD_LIMIT // 2 :]}"))


def _too_much() -> Answer:
    detail = "decoding needs more memory than decode.memory_bytes allows"
    return Answer(failure=Failure(code=ErrorCode.DECODE_BOMB, detail=detail), exhausted=True)


def _is_for_memory(fault: BaseException | None) -> bool:
    """
    Whether memory ran out: Python's own error anywhere behind it, or a library's that says so.
    """
    while fault is not None:
        said = str(fault).lower()
        if isinstance(fault, MemoryError) or any(words in said for words in _OUT_OF_MEMORY):
            return True
        fault = fault.__cause__ or fault.__context__
    return False


def _setup(channel: socket.socket) -> Setup | None:
    prefix = _exactly(channel, SETUP.size)
    if prefix is None:
        return None
    magic, length = SETUP.unpack(prefix)
    if magic != SETUP_MAGIC:
        sys.exit(f"a setup begins with {SETUP_MAGIC!r}, found {magic!r}")
    data = _exactly(channel, length)
    return None if data is None else Setup.from_json(data)


def _requests(channel: socket.socket) -> Iterator[tuple[bytes, ContentHash]]:
    while (prefix := _exactly(channel, REQUEST.size)) is not None:
        magic, digest, length = REQUEST.unpack(prefix)
        if magic != REQUEST_MAGIC:
            sys.exit(f"a request begins with {REQUEST_MAGIC!r}, found {magic!r}")
        data = _exactly(channel, length)
        if data is None:
            return
        yield data, ContentHash(digest.hex())


def _exactly(channel: socket.socket, length: int) -> bytes | None:
    """
    So many bytes; None where the parent has closed its end before them.
    """
    if length == 0:
        return b""
    parts: list[bytes] = []
    while length > 0:
        part = channel.recv(length, socket.MSG_WAITALL)
        if not part:
            return None
        parts.append(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
