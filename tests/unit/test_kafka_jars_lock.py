"""
The lock of Apache Kafka's jars, and how jars get from a Maven repository into the user's cache.

The repository is a real HTTP server in this process, reached as a user would reach a mirror: through jgo's own
configuration file. No test here leaves this machine.
"""

import hashlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from worker.dev.jars import KAFKA_VERSION, LOCK, ROOTS, LockedJar, ensure_jars, maven_cache, read_lock, write_lock
from worker.errors import CannotStart

POM = """\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>org.example</groupId><artifactId>{artifact}</artifactId><version>1.0</version>
  <dependencies>{dependencies}</dependencies>
</project>
"""
DEPENDENCY = (
    "<dependency><groupId>org.example</groupId><artifactId>{artifact}</artifactId><version>1.0</version>"
    "<scope>{scope}</scope></dependency>"
)


@dataclass(frozen=True, slots=True)
class Repository:
    """
    A Maven repository served over HTTP from ``folder``; ``asked`` fills with the paths that were asked for.
    """

    folder: Path
    asked: list[str]

    def publish(self, artifact: str, content: bytes, dependencies: str = "") -> LockedJar:
        """
        ``org.example:artifact:1.0`` with these bytes can be had, and this is how a lock names it.
        """
        jar = LockedJar("org.example", artifact, "1.0", hashlib.sha256(content).hexdigest())
        file = self.folder / jar.path
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        file.with_suffix(".pom").write_text(POM.format(artifact=artifact, dependencies=dependencies), encoding="utf-8")
        return jar


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """
    A repository that stands for Maven Central, and an empty cache for what comes from it.
    """
    served = Repository(tmp_path / "repository", [])
    served.folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:  # noqa: ANN401 - the signature of the standard library
            served.asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served.folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        configuration = tmp_path / "jgo.conf"
        configuration.write_text(f"[repositories]\ncentral = http://127.0.0.1:{server.server_port}\n", encoding="utf-8")
        monkeypatch.setenv("JGO_CONFIG_FILE", str(configuration))
        monkeypatch.setenv("M2_REPO", str(tmp_path / "cache"))
        monkeypatch.setenv("PATH", "")  # neither mvn nor java is needed
        yield served
        server.shutdown()
        thread.join()


def test_committed_lock_names_the_kafka_that_we_promise() -> None:
    """
    The lock in the package holds our Kafka and its jars, each once, sorted, and no address of a registry.
    """
    jars = read_lock()

    coordinates = [jar.coordinates for jar in jars]
    assert f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}" in coordinates
    assert {KAFKA_VERSION} == {jar.version for jar in jars if jar.group == "org.apache.kafka"}
    assert {root.rstrip("!") for root in ROOTS} <= set(coordinates)
    assert sorted(set(coordinates)) == coordinates
    assert len(jars) == 46
    assert "://" not in LOCK.read_text(encoding="utf-8")


def test_line_that_is_no_jar_is_refused_by_number(tmp_path: Path) -> None:
    """
    A damaged lock is refused with file, line and what a line must be.
    """
    lock = tmp_path / "kafka-jars.lock"
    lock.write_text(f"# comment\n\norg.example:a:1.0 sha256:{'0' * 64}\norg.example:b:1.0 sha256:beef\n")

    with pytest.raises(CannotStart, match=r"kafka-jars\.lock:4: found 'org\.example:b:1\.0 sha256:beef', expected"):
        read_lock(lock)


def test_missing_jars_are_fetched_once(repository: Repository) -> None:
    """
    What is missing comes from the repository into the cache; from then on nobody is asked.
    """
    jars = [repository.publish("one", b"first"), repository.publish("two", b"second")]

    fetched = ensure_jars(jars)
    repository.asked.clear()
    again = ensure_jars(jars)

    assert fetched == again
    assert [path.read_bytes() for path in again] == [b"first", b"second"]
    assert [maven_cache() / jar.path for jar in jars] == list(again)
    assert repository.asked == []


def test_only_what_is_missing_is_asked_for(repository: Repository) -> None:
    """
    A jar that the cache already has is not asked of the repository again.
    """
    one, two = repository.publish("one", b"first"), repository.publish("two", b"second")
    ensure_jars([one])
    repository.asked.clear()

    ensure_jars([one, two])

    assert f"/{two.path}" in repository.asked
    assert f"/{one.path}" not in repository.asked


def test_jar_of_other_bytes_is_not_kept(repository: Repository) -> None:
    """
    A repository that serves other bytes than were locked is refused, and the bytes never reach the cache.
    """
    served = repository.publish("one", b"not what was locked")
    locked = replace(served, sha256="0" * 64)

    with pytest.raises(CannotStart, match=f"found sha256 {served.sha256}, expected {locked.sha256}"):
        ensure_jars([locked])

    assert [path for path in maven_cache().rglob("*") if path.is_file()] == []


def test_damaged_jar_in_the_cache_is_named(repository: Repository) -> None:
    """
    A file of the cache that is not the locked one is refused, and the message says which to delete.
    """
    jar = repository.publish("one", b"first")
    (damaged,) = ensure_jars([jar])
    damaged.write_bytes(b"fir")

    with pytest.raises(CannotStart, match=f"Delete {damaged} and start again"):
        ensure_jars([jar])


def test_jar_that_is_nowhere_is_named_with_ways_out(repository: Repository) -> None:
    """
    A jar that cannot be had is named, together with what one can do without it.
    """
    nowhere = LockedJar("org.example", "nowhere", "1.0", "0" * 64)

    with pytest.raises(
        CannotStart, match=r"Cannot fetch org\.example:nowhere:1\.0.*jgo\.conf.*KAFKA_BOOTSTRAP_SERVERS"
    ):
        ensure_jars([nowhere])

    assert f"/{nowhere.path}" in repository.asked


def test_cache_that_cannot_be_written_is_named(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where the cache cannot be made, the message says where and which variable moves it.
    """
    jar = repository.publish("one", b"first")
    (tmp_path / "file").touch()
    monkeypatch.setenv("M2_REPO", str(tmp_path / "file" / "cache"))

    with pytest.raises(CannotStart, match=r"Cannot store the jars of Apache Kafka in .*/file/cache.*M2_REPO"):
        ensure_jars([jar])


def test_lock_is_written_from_what_the_repository_serves(repository: Repository, tmp_path: Path) -> None:
    """
    A new lock holds the roots and what they need at run time, with the served hashes whatever the cache holds.
    """
    needed = repository.publish("needed", b"needed")
    repository.publish("for-tests", b"not needed to run")
    root = repository.publish(
        "root",
        b"root",
        DEPENDENCY.format(artifact="needed", scope="runtime") + DEPENDENCY.format(artifact="for-tests", scope="test"),
    )
    (maven_cache() / needed.path).parent.mkdir(parents=True)
    (maven_cache() / needed.path).write_bytes(b"something else")
    lock = tmp_path / "kafka-jars.lock"

    written = write_lock(lock, roots=["org.example:root:1.0"])

    assert (needed, root) == written
    assert written == read_lock(lock)


def test_without_jgo_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without the extra, one learns its name and the variables that make it unnecessary.
    """
    monkeypatch.setitem(sys.modules, "jgo.config", None)

    with pytest.raises(CannotStart, match=r"touchstone-worker\[dev\], or set KAFKA_BOOTSTRAP_SERVERS and REDIS_URL"):
        ensure_jars(read_lock())
