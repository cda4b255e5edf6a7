"""
A decoder whose pictures are decoded by child processes: what the pipeline sees of this room.

It gives the pictures that ``PillowDecoder`` gives, and fails as that fails; and it fails one picture where that would
have taken the worker with it.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import structlog

from schemas.errors import ErrorCode, Stage
from worker.decoding.child_process import PROGRAM, DecoderChild, DiedIdle, Lost
from worker.decoding.nursery import Nursery
from worker.decoding.protocol import Answer, Setup, failed, printable
from worker.domain import ContentHash
from worker.errors import UploadFailed
from worker.ports import PictureDecoder
from worker.views import DecodedPicture, Undecoded

log = structlog.get_logger(__name__)

_TRIES: Final = 3
"""Children that may be found dead before a picture is sent to them, one after the other."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """
    How many children decode at once, how long one may take for a picture, and after how many it is replaced.
    """

    threads: int
    timeout_s: float
    recycle_after: int


@runtime_checkable
class Closing(Protocol):
    """
    A decoder that has anything to close.
    """

    def close(self) -> None:
        """
        End what it holds; a second time, nothing.
        """


class ProcessDecoder:
    """
    Decodes in child processes; any number of threads may call it at once, ``threads`` of them decode.

    No child is started before the first picture. ``close`` ends them, and so does the end of this object, or of the
    process however it ends. Known hole: a child that a picture took over without being noticed answers for those that
    follow, until it is replaced; it can lie about them, and do nothing else here.
    """

    def __init__(
        self,
        setup: Setup,
        lifetimes: Lifetimes,
        *,
        on_end: Callable[[str], None] = lambda _reason: None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """
        ``on_end`` is told why each child was ended before the decoder was closed.

        One of recycled, timeout, crashed, garbled, out_of_memory and idle.
        """
        self._timeout_s = lifetimes.timeout_s
        self._on_end = on_end
        self._nursery = Nursery(
            lambda: DecoderChild(setup, program), threads=lifetimes.threads, recycle_after=lifetimes.recycle_after
        )
        self._closed = weakref.finalize(self, self._nursery.close)

    def decode(self, data: bytes, content_hash: ContentHash) -> DecodedPicture:
        """
        As ``look_into``, by children that leave nothing to a device.
        """
        found = self.look_into(data, content_hash)
        if isinstance(found, Undecoded):
            raise TypeError("a decoder whose setup leaves JPEGs to a device is asked with look_into")
        return found

    def look_into(self, data: bytes, content_hash: ContentHash) -> DecodedPicture | Undecoded:
        """
        As ``LeavingJpegs.decode``; also DECODE_TIMEOUT, DECODE_CRASHED, and DECODE_BOMB for memory.

        Raises ``CannotStart`` or ``WorkerCrashed`` where no child can be started: that is no picture's fault.
        """
        for _ in range(_TRIES):
            child = self._nursery.take()
            try:
                answer, picture = child.decode(data, content_hash, self._timeout_s)
                if answer.exhausted:
                    self._ended(child, "out_of_memory")
            except DiedIdle as death:
                log.warning("decoder.died_idle", pid=child.pid, ending=str(death))
                self._ended(child, "idle")
                continue
            except Lost as loss:
                log.warning(
                    "decoder.lost", reason=loss.reason, content=content_hash, pid=child.pid, said=child.last_words()
                )
                self._ended(child, loss.reason)
                raise loss.failure from loss
            except BaseException:
                child.end()  # in the middle of an answer: what it says next would be taken for another picture's
                raise
            finally:
                if self._nursery.give(child):
                    self._on_end("recycled")
            return self._picture(answer, picture, content_hash)
        raise UploadFailed(ErrorCode.DECODE_CRASHED, f"{_TRIES} decoder processes ended before they had read the image")

    @property
    def pids(self) -> frozenset[int]:
        """
        The process ids of its children at this moment.
        """
        return self._nursery.pids

    def close(self) -> None:
        """
        End all children; a second time, nothing.
        """
        self._closed()

    def _ended(self, child: DecoderChild, reason: str) -> None:
        child.end()
        self._on_end(reason)

    def _picture(
        self, answer: Answer, picture: DecodedPicture | Undecoded | None, content_hash: ContentHash
    ) -> DecodedPicture | Undecoded:
        if picture is not None:
            return picture
        if answer.failure is not None:
            # Without a name here: its traceback would hold this frame, and so itself and the image's bytes, until the
            # garbage collector comes by, which it seldom does in a worker.
            raise failed(answer.failure)
        lines = [printable(line) for line in (answer.fault or "").splitlines()]
        log.error("decoder.unexpected_fault", content=content_hash, traceback=lines)
        said = lines[0] if lines else "fault"
        raise UploadFailed(ErrorCode.INTERNAL, f"unexpected {said[:100]} in the decoder process", stage=Stage.DECODE)


def close_decoder(decoder: PictureDecoder) -> None:
    """
    Close a decoder that has anything to close.
    """
    if isinstance(decoder, Closing):
        decoder.close()
