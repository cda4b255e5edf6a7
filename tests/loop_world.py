"""
What outlives a worker: the topics in memory, the shelf of pictures, and what the cache holds.

Whenever a worker commits, the world looks whether something unanswered or unacknowledged was passed.
"""

import json
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Self

from schemas.dead_letter import ImageDeadLetterV1
from schemas.envelope import Trace, write_binary
from schemas.errors import Stage
from schemas.retry import RetryMarks, read_marks
from schemas.verdict import ImageVerdictV1
from tests.bank_builders import a_picture
from tests.builders import as_json, upload_attributes, upload_data
from tests.fakes_cache import Kept
from tests.fakes_kafka import Headers, InMemoryEventSource, InMemoryKafka, InMemoryOutbox, StoredRecord
from tests.loop_seams import PATIENCE_S
from tests.loop_watched import Shelf
from worker.adapters.system_clock import SystemClock
from worker.domain import Partition
from worker.outcomes import Release
from worker.ports import Clock, GroupMembership, Polled

UPLOADS, VERDICTS, DEAD_LETTERS = "uploads", "verdicts", "dead-letters"
RETRIES = ("retry-1", "retry-2")
LONGEST_WAIT_S = 0.001
"""A loop that is idle waits a hundred times longer; several hundred tests need not."""

MISSING = "missing.png"
"""The path of a picture that is on no shelf."""

Position = tuple[int, int]


def eventually(condition: Callable[[], bool]) -> None:
    """
    Return when ``condition`` has come true; it is asked again and again, until the test's patience is at an end.
    """
    give_up_s = time.monotonic() + PATIENCE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < give_up_s, "it never came true"
        pause.wait(0.001)


def each(names: Iterable[str], end: str) -> dict[str, list[str]]:
    """
    What ``World.ends`` tells when each of these has ended once, and so.
    """
    return {name: [end] for name in names}


class World:
    """
    A topic of uploads, and one partition each of verdicts and dead letters: the order of all that was published shows.

    With ``retries`` the retry topics are read too, which makes two partitions more for the group.
    """

    def __init__(self, *, partitions: int = 3, clock: Clock | None = None, retries: bool = False) -> None:
        self.retries = RETRIES if retries else ()
        topics = {UPLOADS: partitions, VERDICTS: 1, DEAD_LETTERS: 1, **dict.fromkeys(self.retries, 1)}
        self.kafka = InMemoryKafka(topics, retries=self.retries)
        self.shelf = Shelf()
        self.kept: Kept = {}
        self.clock = clock or SystemClock()
        self.positions: dict[str, Position] = {}
        self.closing = ExitStack()
        self._answered: set[Position] = set()
        self._read = {VERDICTS: 0, DEAD_LETTERS: 0}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.close()

    def publish(
        self,
        *names: str,
        partition: int = 0,
        picture: str | None = None,
        key: str | None = None,
        host: str | None = None,
        trace: Trace = (),
    ) -> None:
        """
        Upload events, each of a picture of its own unless one is named; it is shelved, but for ``MISSING``.

        The references name files or, with a ``host``, addresses there.
        """
        for name in names:
            path = picture or name
            if path != MISSING and path not in self.shelf.pictures:
                self.shelf.pictures[path] = a_picture(zlib.crc32(path.encode()))
            ref = {"kind": "https", "url": f"https://{host}/{path}"} if host else {"kind": "file", "path": path}
            data = upload_data(content_id=name, image={"ref": ref})
            headers = write_binary(upload_attributes(id=name, subject=name), trace)
            self.publish_raw(name, as_json(data), partition=partition, key=key, headers=headers)

    def publish_raw(
        self, name: str, value: bytes, *, partition: int = 0, key: str | None = None, headers: Headers = ()
    ) -> None:
        """
        Any record.
        """
        key_bytes = (key or name).encode()
        offset = self.kafka.append(Partition(UPLOADS, partition), value, key=key_bytes, headers=headers)
        self.positions[name] = (partition, offset)

    def verdicts(self) -> list[ImageVerdictV1]:
        """
        The verdicts that a read_committed reader finds, in order.
        """
        return [ImageVerdictV1.model_validate_json(record.value or b"") for record in self.kafka.records(VERDICTS)]

    def judged(self, partition: int | None = None) -> list[str]:
        """
        The names in the verdicts, in order: all, or those of one partition of the uploads.
        """
        return [one.content_id for one in self.verdicts() if partition in (None, one.input.partition)]

    def dead_letters(self) -> list[ImageDeadLetterV1]:
        """
        The dead letters that a read_committed reader finds, in order.
        """
        records = self.kafka.records(DEAD_LETTERS)
        return [ImageDeadLetterV1.model_validate_json(record.value or b"") for record in records]

    def ends(self) -> dict[str, list[str]]:
        """
        How each upload ended, by name: each list should have but one element.

        A dead letter beside a failed verdict is no end of its own: see ``letters_beside``.
        """
        found: dict[str, list[str]] = {}
        for verdict in self.verdicts():
            found.setdefault(verdict.content_id, []).append(verdict.error.code if verdict.error else "judged")
        names = {position: name for name, position in self.positions.items()}
        for letter in self.dead_letters():
            name = names[letter.original.partition, letter.original.offset]
            if letter.error.stage is Stage.PARSE:
                found.setdefault(name, []).append(f"dead letter: {letter.error.code}")
        return found

    def letters_beside(self) -> dict[str, list[str]]:
        """
        The codes of the dead letters beside failed verdicts, by the upload's name.
        """
        found: dict[str, list[str]] = {}
        for letter in self.dead_letters():
            if letter.error.stage is not Stage.PARSE:
                found.setdefault(letter.content_id or "", []).append(letter.error.code)
        return found

    def put_off(self) -> list[tuple[str, RetryMarks, StoredRecord]]:
        """
        What a read_committed reader finds in the retry topics, by the upload's name.
        """
        names = {position: name for name, position in self.positions.items()}
        records = [record for topic in self.retries for record in self.kafka.records(topic)]
        marked = [(read_marks(record.headers), record) for record in records]
        return [(names[marks.partition, marks.offset], marks, record) for marks, record in marked]

    def committed(self, partition: int = 0) -> int:
        """
        The group's offset.
        """
        with self.kafka.changed:
            return self.kafka.committed.get(Partition(UPLOADS, partition), 0)

    def answered(self) -> set[Position]:
        """
        The positions that have an outcome which a read_committed reader sees.
        """
        with self.kafka.changed:
            for topic, where in ((VERDICTS, "input"), (DEAD_LETTERS, "original")):
                log = self.kafka.logs[Partition(topic, 0)]
                for record in log[self._read[topic] :]:
                    if not record.aborted:
                        found = json.loads(record.value or b"")[where]
                        self._answered.add((found["partition"], found["offset"]))
                self._read[topic] = len(log)
            return set(self._answered)

    def all_answered(self) -> bool:
        """
        Whether every event that was published has an outcome.
        """
        return set(self.positions.values()) <= self.answered()

    def all_committed(self) -> bool:
        """
        Whether the group would read nothing again.
        """
        last = dict(sorted(self.positions.values()))
        again = {record.partition: record.offset + 1 for _, _, record in self.put_off()}
        with self.kafka.changed:
            gone = all(self.kafka.committed.get(partition) == end for partition, end in again.items())
        return gone and all(self.committed(partition) == offset + 1 for partition, offset in last.items())

    def require_nothing_committed_early(self) -> None:
        """
        Every offset below a committed one has an outcome, and none of them waits for its acknowledgement.
        """
        with self.kafka.changed:
            places = self._done_with()
            held_at = {(at, offset) for outbox in self.kafka.outboxes for at, offset in outbox._held}
            for partition, committed in self.kafka.committed.items():
                answered = {offset for at, offset in places if at == partition}
                held = {offset for at, offset in held_at if at == partition}
                below = set(range(committed)) - self._aborted(partition)
                assert below <= answered, f"the commit of {committed} passed {sorted(below - answered)}, unanswered"
                assert not below & held, f"the commit of {committed} passed {sorted(below & held)}, unacknowledged"

    def _done_with(self) -> set[tuple[Partition, int]]:
        """
        Where records lie that ended or were put off: of the retry topics, those whose upload ended or failed again.
        """
        ended = self.answered()
        put_off = [(marks, record) for _, marks, record in self.put_off()]
        latest: dict[Position, int] = {}
        for marks, _ in put_off:
            at = (marks.partition, marks.offset)
            latest[at] = max(marks.attempts, latest.get(at, 0))
        done = {(Partition(UPLOADS, number), offset) for number, offset in {*ended, *latest}}
        for marks, record in put_off:
            at = (marks.partition, marks.offset)
            if at in ended or latest[at] > marks.attempts:
                done.add((record.partition, record.offset))
        return done

    def _aborted(self, partition: Partition) -> set[int]:
        return {record.offset for record in self.kafka.logs[partition] if record.aborted}


class WatchedSource(InMemoryEventSource):
    """
    Remembers what each poll was asked for, and looks after each commit. No poll waits longer than ``LONGEST_WAIT_S``.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world.kafka)
        self.rooms: list[int] = []
        self.waits_s: list[float] = []
        self._world = world

    def poll(self, *, room: int, wait_s: float) -> Polled:
        """
        As always, but sooner.
        """
        self.rooms.append(room)
        self.waits_s.append(wait_s)
        return super().poll(room=room, wait_s=min(wait_s, LONGEST_WAIT_S))

    def commit(self, offsets: Mapping[Partition, int]) -> bool:
        """
        As always.
        """
        stored = super().commit(offsets)
        self._world.require_nothing_committed_early()
        return stored


class WatchedOutbox(InMemoryOutbox):
    """
    Looks after each transaction.
    """

    def __init__(self, world: World, *, transactional_id: str | None) -> None:
        super().__init__(world.kafka, transactional_id=transactional_id)
        self._world = world

    def transact(
        self, releases: Sequence[Release], offsets: Mapping[Partition, int], membership: GroupMembership
    ) -> bool:
        """
        As always.
        """
        taken = super().transact(releases, offsets, membership)
        self._world.require_nothing_committed_early()
        return taken
