"""
Two sides' verdicts joined by upload event, in a file without a name, so that millions fit beside little memory.

Of several verdicts of one side on one event the newest counts, however they are ordered. What two joined verdicts say
is compared in ``comparison.py``.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final, Literal

from schemas.verdict import ImageVerdictV1
from worker.diff.seen import EventKey, Seen, key_of, packed, seen_of, unpacked
from worker.errors import CannotStart

SideName = Literal["a", "b"]

_AT_ONCE: Final = 1_000
_TABLE: Final = """
CREATE TABLE verdict (
    side TEXT NOT NULL, source TEXT NOT NULL, id TEXT NOT NULL, produced REAL NOT NULL, verdict_id TEXT NOT NULL,
    seen TEXT NOT NULL, versions INTEGER NOT NULL,
    topic TEXT NOT NULL, partition INTEGER NOT NULL, "offset" INTEGER NOT NULL, run TEXT NOT NULL
)
"""
_INSERT: Final = "INSERT INTO verdict VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Made when all is in: sorting once is faster than keeping a million rows sorted. `seen` last makes order decide all.
_INDEX: Final = "CREATE INDEX IF NOT EXISTS by_event ON verdict (source, id, side, produced, verdict_id)"
_SPANS: Final = (
    'SELECT topic, partition, min("offset"), max("offset") FROM verdict WHERE side = ? GROUP BY topic, partition'
)
_ALL: Final = (
    'SELECT source, id, side, seen, versions, topic, partition, "offset", run FROM verdict '
    "ORDER BY source, id, side, produced, verdict_id, seen"
)


_Row = tuple[str, str, str, str, int, str, int, int, str]


@dataclass(frozen=True, slots=True)
class Taken:
    """
    The verdict that counts for one side, and under which number its versions stand.

    ``repeats`` has the run id of each verdict of a replay on an upload that the same replay had judged already.
    """

    seen: Seen
    versions: int
    verdicts: int
    repeats: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """
    An event with what each side says of it; at least one side does.
    """

    event: EventKey
    a: Taken | None
    b: Taken | None


class Joined:
    """
    Verdicts of both sides, first added, then paired. For one thread.
    """

    def __init__(self) -> None:
        # A file without a name: SQLite unlinks it before anything is written to it, so nothing is left of it however
        # the process ends. Nothing needs to survive a crash, either.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _TABLE)
        self._database.execute("BEGIN")
        self._waiting: list[tuple[str | float, ...]] = []
        self._versions: dict[bytes, int] = {}

    def add(self, side: SideName, verdict: ImageVerdictV1) -> None:
        """
        Take a verdict of this side.
        """
        event, at = key_of(verdict), verdict.input
        versions = verdict.versions.model_dump_json(by_alias=True).encode()
        self._waiting.append(
            (
                side,
                event.source,
                event.id,
                verdict.timing.produced_at.timestamp(),
                str(verdict.verdict_id),
                packed(seen_of(verdict)),
                self._versions.setdefault(versions, len(self._versions)),
                at.topic,
                at.partition,
                at.offset,
                replay_of(verdict) or "",
            )
        )
        if len(self._waiting) >= _AT_ONCE:
            self._write()

    @property
    def versions(self) -> list[bytes]:
        """
        All versions that were met, as JSON, at the numbers that ``Taken.versions`` has.
        """
        return list(self._versions)

    def pairs(self, *, within_b: bool = False) -> Iterator[Pair]:
        """
        Every event of either side, in the order of their names.

        ``within_b``: verdicts of A on uploads that lie before B's first or after B's last upload of their partition of
        the upload topic, or in a partition that B has nothing of, are passed over.
        """
        self._write()
        self._database.execute(_INDEX)
        spans = {(topic, number): (low, high) for topic, number, low, high in self._database.execute(_SPANS, ("b",))}

        def counts(row: _Row) -> bool:
            low, high = spans.get((row[5], row[6]), (0, -1))
            return not within_b or row[2] == "b" or low <= row[7] <= high

        rows = filter(counts, self._database.execute(_ALL))
        for (source, name), of_event in groupby(rows, key=itemgetter(0, 1)):
            sides = {side: _newest(list(of_side)) for side, of_side in groupby(of_event, itemgetter(2))}
            yield Pair(EventKey(source, name), sides.get("a"), sides.get("b"))

    def close(self) -> None:
        """
        Give the file back.
        """
        self._database.close()

    def _write(self) -> None:
        self._database.executemany(_INSERT, self._waiting)
        self._waiting.clear()


@contextmanager
def joined() -> Iterator[Joined]:
    """
    A ``Joined`` that is gone afterwards, also when the process is killed.

    Raises ``CannotStart`` when there is no room for it.
    """
    try:
        with closing(Joined()) as store:
            yield store
    except sqlite3.OperationalError as error:
        raise CannotStart(
            f"The verdicts could not be laid down in the folder for temporary files while they are compared ({error}); "
            "make room there (about 1.5 kB for each verdict), or name another folder in the environment (SQLITE_TMPDIR)"
        ) from error


def replay_of(verdict: ImageVerdictV1) -> str | None:
    """
    The run id of the replay that made a verdict; None of any other, a shadow's among them.

    A replay judges each upload once, whatever happens. Live workers may judge what is delivered again, and with them
    their shadows.
    """
    return verdict.run_id if verdict.mode == "replay" else None


def _newest(rows: list[_Row]) -> Taken:
    uploads = Counter(row[5:] for row in rows if row[8])
    repeats = tuple(upload[3] for upload, verdicts in uploads.items() for _ in range(verdicts - 1))
    return Taken(unpacked(rows[-1][3]), rows[-1][4], len(rows), repeats)
