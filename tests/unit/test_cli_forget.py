"""
``touchstone forget``: what it asks for, what it says, and how it ends where stores are out of reach.
"""

import json
from contextlib import closing
from pathlib import Path

import pytest

from tests.command_line import Touchstone, command_line
from tests.sightings import a_hash, a_scope, a_sighting
from worker.adapters.sighting_file import SightingFile
from worker.adapters.system_clock import SystemClock
from worker.telemetry.metrics import InMemoryRecorder

CAT, DOG = a_hash("cat"), a_hash("dog")
NO_REDIS = ("--set", "redis.enabled=false")
REDIS_AWAY = ("--set", "redis.url=redis://:s3cr3t@127.0.0.1:1/0")


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    Runs ``touchstone forget ...`` in an empty folder.
    """
    monkeypatch.chdir(tmp_path)
    return command_line(monkeypatch, capsys, "forget")


@pytest.fixture
def archive(tmp_path: Path) -> tuple[str, ...]:
    """
    The settings of an archive that holds a cat and a dog.
    """
    path = tmp_path / "embeddings.sqlite"
    with closing(opened(path)) as file:
        file.keep({name: a_sighting(name) for name in (CAT, DOG)})
    return ("--set", "embeddings.keep=file", "--set", f"embeddings.path={path}")


def opened(path: Path) -> SightingFile:
    """
    The archive as a replay opens it.
    """
    return SightingFile(path, a_scope(), recorder=InMemoryRecorder(), clock=SystemClock(), retention_s=None)


def test_bytes_are_forgotten_by_hash_without_a_redis(
    forget: Touchstone, archive: tuple[str, ...], tmp_path: Path
) -> None:
    """
    Rows of the named bytes are gone from the archive's file, others stay, and the exit code says that it is done.
    """
    code, out, _ = forget("--sha256", CAT, *archive, *NO_REDIS, "--json")
    said = json.loads(out)
    with closing(opened(tmp_path / "embeddings.sqlite")) as file:
        left = file.recall([CAT, DOG])

    assert (0, {"archive": 1}, {}) == (code, said["removed"], said["failed"])
    assert {DOG} == set(left)


def test_a_content_whose_bytes_are_named_is_known(forget: Touchstone, archive: tuple[str, ...]) -> None:
    """
    What the command advises ends well: only --sha256 tells which bytes the content had, and the exit code is 0.
    """
    code, out, err = forget("post-1", "--sha256", CAT, *archive, *NO_REDIS, "--json")
    said = json.loads(out)

    assert (0, "") == (code, err)
    assert ({"archive": 1}, 0, []) == (said["removed"], said["unknown"], said["unknown_contents"])


def test_a_redis_that_is_away_is_named_and_the_rest_is_done(
    forget: Touchstone, archive: tuple[str, ...], tmp_path: Path
) -> None:
    """
    The archive forgets; of Redis, whose password is not shown, it is said that nothing is known to be removed.
    """
    code, out, err = forget("post-1", "--sha256", CAT, *archive, *REDIS_AWAY)
    with closing(opened(tmp_path / "embeddings.sqlite")) as file:
        left = file.recall([CAT, DOG])

    assert 1 == code
    assert {DOG} == set(left)
    assert "1 values removed from archive" in out
    assert "Not removed from redis" in err
    assert "s3cr3t" not in out + err


def test_an_archive_that_is_away_is_named(forget: Touchstone, tmp_path: Path) -> None:
    """
    A file that cannot be opened keeps nobody else from forgetting; it is named, and the exit code is 1.
    """
    keep = ("--set", "embeddings.keep=file", "--set", f"embeddings.path={tmp_path / 'none' / 'embeddings.sqlite'}")
    code, out, err = forget("--sha256", CAT, *keep, *NO_REDIS, "--json")

    assert 1 == code
    assert {"archive"} == set(json.loads(out)["failed"])
    assert "Not removed from archive" in err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "nothing was named"),
        (("--sha256", "CAT"), "64 hex digits"),
        (("--sha256", CAT, "--publish"), "--publish needs a CONTENT_ID"),
        (("--sha256", CAT, "--search-verdicts"), "--search-verdicts needs a CONTENT_ID"),
        (("post-1", *NO_REDIS), "no store"),
        (("post-1", *NO_REDIS, "--set", "embeddings.keep=file", "--set", "embeddings.path=x.sqlite"), "which bytes"),
    ],
    ids=["nothing", "no hash", "hash alone", "search for a hash", "no store", "no names"],
)
def test_what_cannot_be_meant_is_refused(forget: Touchstone, arguments: tuple[str, ...], why: str) -> None:
    """
    A command line that could forget nothing, or publish nothing, is refused before anything is touched.
    """
    code, out, err = forget(*arguments)

    assert 2 == code
    assert why in err
    assert "" == out
