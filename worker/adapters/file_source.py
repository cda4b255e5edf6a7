"""
Files as an event source: what ``touchstone scan`` reads instead of a topic.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

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
    The files named, and all files below the folders named, in order; hidden ones below a folder are passed over.

    Raises ``ConfigInvalid`` for a path that does not exist.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = sorted(file for file in path.rglob("*") if file.is_file())
            files += [file for file in below if not any(part.startswith(".") for part in file.relative_to(path).parts)]
        elif path.exists():
            files.append(path)
        else:
            raise ConfigInvalid(f"{path}: no such file or folder")
    return files


def event_of_file(path: Path, position: tuple[Partition, int], *, surface: str | None, now_s: float) -> RawEvent:
    """
    The upload event that says: judge this file.
    """
    partition, offset = position
    resolved = path.resolve()
    name = UNSPEAKABLE.sub("\ufffd", str(path))
    body = {
        "content_id": name if len(name) <= MAX_CONTENT_ID else "…" + name[-MAX_CONTENT_ID + 1 :],
        # Known hole: a name that is not UTF-8 does not fit into JSON, so such a file is not found, and fails.
        "image": {"ref": {"kind": "file", "path": SURROGATE.sub("\ufffd", str(resolved))}},
        "context": {"surface": surface},
    }
    identity = hashlib.sha256(str(resolved).encode("utf-8", "surrogateescape")).hexdigest()
    headers = {
        "ce_specversion": "1.0",
        "ce_id": identity,
        "ce_source": SOURCE,
        "ce_type": TYPE,
        "content-type": "application/json",
    }
    return RawEvent(
        partition,
        offset,
        key=None,
        value=json.dumps(body).encode(),
        headers=tuple((header, value.encode()) for header, value in headers.items()),
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
