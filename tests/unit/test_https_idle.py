"""
How many connections are kept for the next request, and for how long.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fake_outcomes import ManualClock
from tests.https_rig import IMAGE, RecordingDialer, ref
from tests.scripted_web import ScriptedWeb, answer, scripted_web
from tests.servers import eventually
from worker.adapters.https_idle import IDLE_S, IdleConnections
from worker.adapters.https_pool import KEPT_PER_THREAD
from worker.adapters.https_store import HttpsStore
from worker.settings.images import FetchSettings

HERE = ("https", "images.test", 443)
THERE = ("https", "images.test", 8443)
THREADS = 3
HOSTS = 40

ESTABLISHED, CLOSED_BY_THE_OTHER = "01", "08"
"""As /proc/net/tcp says it; in other states a connection is the kernel's alone."""


@dataclass(eq=False)
class Connection:
    """
    One that a test can close from the other side.
    """

    is_connected: bool = True
    closed: bool = False

    def close(self) -> None:
        """
        Ours is closed.
        """
        self.closed = True


@pytest.fixture
def clock() -> ManualClock:
    """
    A clock that stands still.
    """
    return ManualClock()


@pytest.fixture
def idle(clock: ManualClock) -> IdleConnections[Connection]:
    """
    Three connections, for half a minute.
    """
    return IdleConnections(3, now_s=clock.monotonic_s)


@pytest.fixture
def web() -> Iterator[ScriptedWeb]:
    """
    A server that many hosts share.
    """
    with scripted_web() as server:
        server.routes["/cat.jpg"] = answer(200, IMAGE)
        yield server


def test_a_connection_is_for_its_host_and_port(idle: IdleConnections[Connection]) -> None:
    """
    Of those of this origin the one that was used last is taken, and each only once.
    """
    first, second, other = Connection(), Connection(), Connection()
    for origin, connection in ((HERE, first), (HERE, second), (THERE, other)):
        idle.keep(origin, connection)
    taken = [idle.taken(HERE) for _ in range(3)]

    assert [second, first, None] == taken
    assert 1 == len(idle)
    assert not any(connection.closed for connection in (first, second, other))


def test_no_more_are_kept_than_allowed(idle: IdleConnections[Connection]) -> None:
    """
    Over all hosts together; the one that lay longest is closed.
    """
    connections = [Connection() for _ in range(5)]
    for number, connection in enumerate(connections):
        idle.keep(("https", f"{number}.test", 443), connection)

    assert [True, True, False, False, False] == [connection.closed for connection in connections]


def test_none_is_kept_for_long(idle: IdleConnections[Connection], clock: ManualClock) -> None:
    """
    What lay too long is closed when anything is fetched, from whatever host.
    """
    old, young = Connection(), Connection()
    idle.keep(HERE, old)
    clock.now_s += IDLE_S - 1
    idle.keep(HERE, young)
    clock.now_s += 1
    idle.taken(THERE)

    assert (True, False) == (old.closed, young.closed)
    assert young is idle.taken(HERE)


def test_what_the_other_side_has_closed_is_not_used(idle: IdleConnections[Connection]) -> None:
    """
    Neither kept nor taken; and its descriptor is given back.
    """
    gone, going = Connection(is_connected=False), Connection()
    idle.keep(HERE, gone)
    idle.keep(HERE, going)
    going.is_connected = False
    taken = idle.taken(HERE)

    assert taken is None
    assert (True, True) == (gone.closed, going.closed)


def test_nothing_is_kept_after_the_end(idle: IdleConnections[Connection]) -> None:
    """
    What was idle is closed, and what is still in use is closed when it comes back.
    """
    before, after = Connection(), Connection()
    idle.keep(HERE, before)
    idle.close()
    idle.keep(HERE, after)

    assert (True, True) == (before.closed, after.closed)


def test_hosts_without_end_hold_few_descriptors(web: ScriptedWeb) -> None:
    """
    However many hosts an uploader has, their idle connections are bounded over all of them, and none stays at the end.
    """
    dialer = RecordingDialer()
    store = HttpsStore(FetchSettings(allow_http=True, threads=THREADS), dialer=dialer)
    urls = [web.url("/cat.jpg", host=f"h{number}.evil.test") for number in range(HOSTS) for _ in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        read = list(pool.map(lambda url: store.read(ref(url)), urls))
    kept = dialer.left_open()
    # Both ends are in this process, and the server's close a moment after ours.
    few = eventually(lambda: descriptors(web.port) <= 2 * KEPT_PER_THREAD * THREADS)
    store.close()
    ended = eventually(lambda: descriptors(web.port) == 0)

    assert [IMAGE] * len(urls) == read
    assert len(dialer.made) >= HOSTS
    assert kept <= KEPT_PER_THREAD * THREADS
    assert few
    assert dialer.left_open() == 0
    assert ended


def test_one_host_is_asked_over_one_connection(web: ScriptedWeb) -> None:
    """
    What is kept is used again.
    """
    dialer = RecordingDialer()
    store = HttpsStore(FetchSettings(allow_http=True, threads=THREADS), dialer=dialer)
    for _ in range(5):
        store.read(ref(web.url("/cat.jpg")))
    made = len(dialer.made)
    store.close()

    assert made == 1


def descriptors(port: int) -> int:
    """
    How many connections from or to this port are held by somebody; other descriptors of this process are not ours.
    """
    rows = [row.split() for row in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return sum(
        state in {ESTABLISHED, CLOSED_BY_THE_OTHER} and f"{port:04X}" in {here[-4:], there[-4:]}
        for _, here, there, state, *_ in rows
    )
