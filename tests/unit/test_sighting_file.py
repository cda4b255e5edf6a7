"""
The file of kept sightings: processes that share it, its retention, what damage costs, and that forgetting is real.
"""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fake_outcomes import ManualClock
from tests.sightings import a_hash, a_scope, a_sighting, same
from worker.adapters.sighting_codec import pack_measured, scope_digest
from worker.adapters.sighting_file import PURGE_EVERY_S, SightingFile
from worker.adapters.sighting_rows import SightingRows
from worker.errors import ArchiveUnavailable, CannotStart
from worker.telemetry.metrics import InMemoryRecorder

CAT, DOG = a_hash("cat"), a_hash("dog")
DAY_S = 24 * 3600.0

VISITOR = """
import sys
from contextlib import closing
from pathlib import Path
from worker.adapters.sighting_rows import SightingRows

with closing(SightingRows(Path(sys.argv[1]))) as rows:
    print(len(rows))
"""

KEEPER = """
import sys
from pathlib import Path
from tests.sightings import a_hash, a_scope, a_sighting
from worker.adapters.sighting_file import SightingFile
from worker.adapters.system_clock import SystemClock
from worker.telemetry.metrics import InMemoryRecorder

archive = SightingFile(Path(sys.argv[1]), a_scope(), recorder=InMemoryRecorder(), clock=SystemClock(), retention_s=60)
for number in range(int(sys.argv[3])):
    name = a_hash(f"{sys.argv[2]}-{number}")
    archive.keep({name: a_sighting(name), a_hash("both"): a_sighting(a_hash("both"))})
    print(number, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """
    Where the file will lie.
    """
    return tmp_path / "embeddings.sqlite"


@pytest.fixture
def clock() -> ManualClock:
    """
    Time stands still.
    """
    return ManualClock()


@pytest.fixture
def recorder() -> InMemoryRecorder:
    """
    Nothing is counted yet.
    """
    return InMemoryRecorder()


@pytest.fixture
def archive(path: Path, clock: ManualClock, recorder: InMemoryRecorder) -> Iterator[SightingFile]:
    """
    An archive that keeps for ninety days.
    """
    opened = SightingFile(path, a_scope(), recorder=recorder, clock=clock, retention_s=90 * DAY_S)
    with closing(opened):
        yield opened


def a_process(path: Path, name: str, count: int) -> "subprocess.Popen[str]":
    """
    Another process that keeps so many sightings of its own, and one that all share, again and again.
    """
    return subprocess.Popen(
        [sys.executable, "-c", KEEPER, str(path), name, str(count)], stdout=subprocess.PIPE, text=True
    )


def visited(path: Path) -> int:
    """
    How many sightings another process finds, which opens the file and closes it again.
    """
    return int(subprocess.run([sys.executable, "-c", VISITOR, str(path)], capture_output=True, check=True).stdout)


def everywhere(path: Path) -> bytes:
    """
    All bytes of the file and of what lies beside it.
    """
    return b"".join(one.read_bytes() for one in sorted(path.parent.glob(path.name + "*")))


def test_processes_share_the_file(path: Path, recorder: InMemoryRecorder) -> None:
    """
    Two that open it at the same moment and write all the time lose nothing of each other's.
    """
    processes = [a_process(path, name, 50) for name in ("one", "other")]
    ended = [process.wait(60) for process in processes]
    names = [a_hash(f"{name}-{number}") for name in ("one", "other") for number in range(50)]
    opened = SightingFile(path, a_scope(), recorder=recorder, clock=ManualClock(), retention_s=None)
    with closing(opened) as archive:
        found = archive.recall([*names, a_hash("both")])

    assert [0, 0] == ended
    assert 101 == len(found)
    assert all(same(sighting, a_sighting(name)) for name, sighting in found.items())


def test_what_a_killed_process_kept_is_there(path: Path, recorder: InMemoryRecorder) -> None:
    """
    After SIGKILL the file is whole, with all that had been kept.
    """
    with a_process(path, "killed", 100_000) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        process.send_signal(signal.SIGKILL)
    opened = SightingFile(path, a_scope(), recorder=recorder, clock=ManualClock(), retention_s=None)
    with closing(opened) as archive:
        found = archive.recall([a_hash(f"killed-{number}") for number in range(5)])

    assert [f"{number}\n" for number in range(5)] == lines
    assert 5 == len(found)


def test_a_second_connection_does_not_cost_the_first_its_log(path: Path, archive: SightingFile) -> None:
    """
    Whoever opens and closes the file beside a process that holds it twice is not the last, and leaves the log alone.
    """
    archive.keep({CAT: a_sighting(CAT)})
    log = path.with_name(path.name + "-wal")
    with closing(SightingRows(path)) as second:
        second.forget([CAT])
    inode = log.stat().st_ino
    seen = [visited(path)]
    after = log.stat().st_ino
    archive.keep({DOG: a_sighting(DOG)})
    seen.append(visited(path))
    with closing(SightingRows(path)) as third:
        gone = third.forget([DOG])

    assert inode == after
    assert [0, 1] == seen
    assert 1 == gone
    assert {} == archive.recall([CAT, DOG])


def test_what_a_link_leads_to_is_its_owners_too(tmp_path: Path) -> None:
    """
    A link to a file that is not there yet is followed, and the file is made for its owner only.
    """
    link, target = tmp_path / "link.sqlite", tmp_path / "target.sqlite"
    link.symlink_to(target)
    SightingRows(link).close()

    assert 0o600 == stat.S_IMODE(target.stat().st_mode)


def test_nothing_outlives_its_time(path: Path, archive: SightingFile, clock: ManualClock) -> None:
    """
    What was not kept again within ninety days is removed when something is kept, and when the file is opened.
    """
    archive.keep({CAT: a_sighting(CAT), DOG: a_sighting(DOG)})
    clock.now_s += 89 * DAY_S
    archive.keep({DOG: a_sighting(DOG)})
    before = len(archive.recall([CAT, DOG]))
    clock.now_s += 2 * DAY_S
    archive.keep({})
    kept_again = list(archive.recall([CAT, DOG]))
    clock.now_s += 90 * DAY_S
    late = SightingFile(path, a_scope(), recorder=InMemoryRecorder(), clock=clock, retention_s=90 * DAY_S)
    with closing(late):
        left = late.recall([CAT, DOG])

    assert 2 == before
    assert [DOG] == kept_again
    assert {} == left


def test_old_rows_are_not_looked_for_at_every_write(
    archive: SightingFile, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Once an hour is enough.
    """
    purges: list[float] = []
    monkeypatch.setattr(archive._rows, "purge", lambda *, before_s: purges.append(before_s))
    for _ in range(4):
        clock.now_s += PURGE_EVERY_S / 2
        archive.keep({CAT: a_sighting(CAT)})

    assert 2 == len(purges)


@pytest.mark.parametrize("column", ["measured", "facts"])
def test_damaged_rows_are_absent_and_counted(
    path: Path, archive: SightingFile, recorder: InMemoryRecorder, column: str
) -> None:
    """
    One bit is enough; kept anew, the row is good again.
    """
    archive.keep({CAT: a_sighting(CAT), DOG: a_sighting(DOG)})
    with closing(sqlite3.connect(path)) as connection, connection:
        row = bytes.fromhex(CAT)
        (value,) = connection.execute(f"SELECT {column} FROM sightings WHERE hash = ?", (row,)).fetchone()  # noqa: S608 - a name of ours
        value = value[:20] + bytes([value[20] ^ 1]) + value[21:]
        connection.execute(f"UPDATE sightings SET {column} = ? WHERE hash = ?", (value, row))  # noqa: S608 - a name of ours
    damaged = list(archive.recall([CAT, DOG, a_hash("eel")]))
    counted = recorder.snapshot()
    archive.keep({CAT: a_sighting(CAT)})

    assert [DOG] == damaged
    assert dict.fromkeys(("hit", "invalid", "miss"), 1) == {
        key.split('"')[1]: value for key, value in counted.items() if key.startswith("archive_reads_total")
    }
    assert {CAT, DOG} == set(archive.recall([CAT, DOG]))


def test_forgetting_leaves_no_bytes(path: Path, archive: SightingFile) -> None:
    """
    Neither in the file nor in the log beside it, while it is open: not the embedding, not the facts, not the hash.
    """
    names = [a_hash(str(number)) for number in range(200)]
    for name in names:
        archive.keep({name: a_sighting(name)})
    vectors = {name: pack_measured(a_sighting(name), name, a_scope())[12:60] for name in names}
    before = everywhere(path)
    gone = archive.forget(names[50:150])
    after = everywhere(path)

    assert 100 == gone
    assert all(vector in before for vector in vectors.values())
    for name in names[50:150]:
        assert vectors[name] not in after
        assert bytes.fromhex(name) not in after
        assert name.encode() not in after
    assert all(vectors[name] in after for name in [*names[:50], *names[150:]])


def test_purging_leaves_no_bytes(path: Path, archive: SightingFile, clock: ManualClock) -> None:
    """
    What is too old is overwritten as well.
    """
    archive.keep({CAT: a_sighting(CAT)})
    clock.now_s += 91 * DAY_S
    archive.keep({DOG: a_sighting(DOG)})
    vector = pack_measured(a_sighting(CAT), CAT, a_scope())[12:60]

    assert vector not in everywhere(path)


def test_forgetting_while_somebody_reads_says_so(path: Path) -> None:
    """
    The rows are gone at once; that their bytes still lie in the log is an error, and forgetting again mends it.
    """
    name = bytes.fromhex(CAT)
    with closing(SightingRows(path, busy_s=0.05)) as rows, closing(sqlite3.connect(path)) as reader:
        opened = SightingFile(path, a_scope(), recorder=InMemoryRecorder(), clock=ManualClock(), retention_s=None)
        with closing(opened) as archive:
            archive.keep({CAT: a_sighting(CAT)})
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sightings").fetchone()
        with pytest.raises(ArchiveUnavailable, match="another process has been reading"):
            rows.forget([CAT])
        found = rows.get([CAT], scope_digest(a_scope()))
        reader.execute("ROLLBACK")
        again = rows.forget([CAT])
        left = everywhere(path)

    assert {} == found
    assert 0 == again
    assert name not in left


def test_the_file_is_its_owners(path: Path, archive: SightingFile) -> None:
    """
    Embeddings are personal data: nobody else on the machine may read them, nor the log beside the file.
    """
    archive.keep({CAT: a_sighting(CAT)})
    files = sorted(path.parent.iterdir())

    assert path in files
    assert {0o600} == {stat.S_IMODE(one.stat().st_mode) for one in files}


def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """
    Another program's database, a text, and a folder that does not exist are refused, with what to do.
    """
    foreign, text = tmp_path / "foreign.sqlite", tmp_path / "notes.txt"
    with closing(sqlite3.connect(foreign)) as connection, connection:
        connection.execute("CREATE TABLE sightings (something TEXT)")
    text.write_text("no database at all, but some text that is long enough to look at\n" * 20)
    before = [foreign.read_bytes(), text.read_bytes()]

    for path, found in (
        (foreign, "not one of ours"),
        (text, "not a database"),
        (tmp_path / "no" / "a", "No such file"),
    ):
        with pytest.raises(CannotStart, match=found):
            SightingRows(path)
    assert before == [foreign.read_bytes(), text.read_bytes()]


def test_a_file_that_breaks_says_so(path: Path, archive: SightingFile) -> None:
    """
    A damaged database is no missing sighting: reading and writing it raise, and name the file.
    """
    archive.keep({a_hash(str(number)): a_sighting(a_hash(str(number))) for number in range(50)})
    archive.close()
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    damaged = SightingFile(path, a_scope(), recorder=InMemoryRecorder(), clock=ManualClock(), retention_s=None)
    names = [a_hash(str(number)) for number in range(50)]
    with closing(damaged):
        with pytest.raises(ArchiveUnavailable, match=path.name):
            damaged.recall(names)
        with pytest.raises(ArchiveUnavailable, match="move the file away"):
            damaged.keep({name: a_sighting(name) for name in names})


def test_a_disk_that_is_full_loses_nothing_that_was_kept(archive: SightingFile) -> None:
    """
    Keeping raises; what was there is still read, and when there is room again keeping goes on.
    """
    archive.keep({CAT: a_sighting(CAT)})
    connection = archive._rows._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    many = {a_hash(str(number)): a_sighting(a_hash(str(number))) for number in range(100)}
    with pytest.raises(ArchiveUnavailable, match="full"):
        archive.keep(many)
    during = list(archive.recall([CAT, *many]))
    connection.execute("PRAGMA max_page_count = 1000000")
    archive.keep(many)

    assert [CAT] == during
    assert 101 == len(archive.recall([CAT, *many]))
