"""
Files as an event source: what ``touchstone scan`` reads instead of a topic.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from schemas.envelope import EventAttributes, write_binary
from schemas.uploaded import TYPE
from worker.domain import Partition, RawEvent
from worker.errors import ConfigInvalid
from worker.ports import Clock, GroupMembership, Polled

SOURCE = "touchstone/scan"
MAX_CONTENT_ID = 256
SURROGATE = re.compile(r"[\ud800-\udfff]")
UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a content id cannot hold: control characters, and bytes of a name that is not UTF-8."""


def list_files(paths: Iterable[Path]) -> list[Path]:
    """
    The files named, and all below the folders named, in order; hidden ones below a folder are passed over.

    Linked folders are followed, each once. What is there but is no file (a broken link, a FIFO) is listed too, to end
    as a failed verdict. Raises ``ConfigInvalid`` for a path that does not exist and a folder that cannot be read.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += _below(path)
        elif path.exists() or path.is_symlink():
            files.append(path)
        else:
            raise ConfigInvalid(f"{path}: no such file or folder")
    return files


def _below(root: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, onerror=_refuse_unread, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _refuse_unread(fault: OSError) -> None:
    raise ConfigInvalid(f"{fault.filename} cannot be read ({fault.strerror}); make it readable, or leave it out")


def as_content_id(name: str) -> str:
    """
    A file's name as a content id: what an id cannot hold is replaced, and of a long one the end is kept.
    """
    name = UNSPEAKABLE.sub("\ufffd", name)
    return name if len(name) <= MAX_CONTENT_ID else "…" + name[-MAX_CONTENT_ID + 1 :]


def as_reference(path: Path) -> str:
    """
    The path for a file reference, links resolved.

    Known hole: a name that is not UTF-8 does not fit into JSON, so such a file is not found, and fails.
    """
    return SURROGATE.sub("\ufffd", os.path.realpath(path))


def event_of_file(path: Path, position: tuple[Partition, int], *, surface: str | None, now_s: float) -> RawEvent:
    """
    The upload event that says: judge this file.
    """
    partition, offset = position
    resolved = os.path.realpath(path)
    body = {
        "content_id": as_content_id(str(path)),
        "image": {"ref": {"kind": "file", "path": as_reference(path)}},
        "context": {"surface": surface},
    }
    identity = hashlib.sha256(resolved.encode("utf-8", "surrogateescape")).hexdigest()
    return RawEvent(
        partition,
        offset,
        key=None,
        value=json.dumps(body).encode(),
        headers=write_binary(EventAttributes(identity, SOURCE, TYPE)),
        received_at_s=now_s,
    )


class FileSource:
    """
    Implements ``worker.ports.EventSource`` over a list of files, as one partition that ends.
    """

    def __init__(self, files: Sequence[Path], *, surface: str | None, clock: Clock) -> None:
        self._files = files
        self._surface = surface
        self._clock = clock
        self._next = 0
        self._partition = Partition("files", 0)

    def poll(self, *, room: int, wait_s: float) -> Polled:
        """
        The next files, as many as there is room for; where there is none, waits out ``wait_s``.
        """
        events = []
        for file in self._files[self._next : self._next + room]:
            position = (self._partition, self._next)
            events.append(event_of_file(file, position, surface=self._surface, now_s=self._clock.wall_s()))
            self._next += 1
        if not events:
            time.sleep(wait_s)
        return Polled(frozenset(), events, GroupMembership(None))

    def commit(self, offsets: Mapping[Partition, int]) -> bool:  # noqa: ARG002 - the port's signature
        """
        Nothing to commit: a scan is repeated, not resumed.
        """
        return True

    @property
    def exhausted(self) -> bool:
        """
        True when every file has been given out.
        """
        return self._next >= len(self._files)

    def close(self) -> None:
        """
        Nothing is held.
        """
