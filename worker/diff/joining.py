"""
Two sides' verdicts joined by upload event, in a temporary file, so that millions fit beside little memory.

Of several verdicts of one side on one event the newest counts, however they are ordered. What two joined verdicts say
is compared in ``comparison.py``.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
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
    topic TEXT NOT NULL, partition INTEGER NOT NULL, "offset" INTEGER NOT NULL
)
"""
_INSERT: Final = "INSERT INTO verdict VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Made when all is in: sorting once is faster than keeping a million rows sorted. `seen` last makes order decide all.
_INDEX: Final = "CREATE INDEX IF NOT EXISTS by_event ON verdict (source, id, side, produced, verdict_id)"
_SPANS: Final = (
    'SELECT topic, partition, min("offset"), max("offset") FROM verdict WHERE side = ? GROUP BY topic, partition'
)
_ALL: Final = (
    'SELECT source, id, side, seen, versions, topic, partition, "offset" FROM verdict '
    "ORDER BY source, id, side, produced, verdict_id, seen"
)


@dataclass(frozen=True, slots=True)
class Taken:
    """
    The verdict that counts for one side, and under which number its versions stand.
    """

    seen: Seen
    versions: int
    verdicts: int


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

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file, isolation_level=None)
        # The file is thrown away whatever happens, so nothing needs to survive a crash.
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

        def counts(row: tuple[str, str, str, str, int, str, int, int]) -> bool:
            low, high = spans.get((row[5], row[6]), (0, -1))
            return not within_b or row[2] == "b" or low <= row[7] <= high

        rows = filter(counts, self._database.execute(_ALL))
        for (source, name), of_event in groupby(rows, key=itemgetter(0, 1)):
            sides = {
                side: _newest([(row[3], row[4]) for row in of_side])
                for side, of_side in groupby(of_event, itemgetter(2))
            }
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
    A ``Joined`` in a file of its own, which is gone afterwards; raises ``CannotStart`` when there is no room for it.
    """
    with TemporaryDirectory(prefix="touchstone-diff-") as folder:
        store = Joined(Path(folder) / "verdicts.sqlite")
        try:
            yield store
        except sqlite3.OperationalError as error:
            raise CannotStart(
                f"The verdicts could not be kept in {gettempdir()} while they are compared ({error}); make room there "
                "(about 1.5 kB for each verdict), or set TMPDIR to a folder that has it"
            ) from error
        finally:
            store.close()


def _newest(rows: list[tuple[str, int]]) -> Taken:
    text, versions = rows[-1]
    return Taken(unpacked(text), versions, len(rows))
