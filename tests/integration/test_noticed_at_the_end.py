"""
What a worker notices of contents that are gone when it is about to leave is forgotten all the same, on a real Redis.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from redis import Redis
from structlog.testing import capture_logs

from tests.forgetting_worlds import InFlight
from tests.servers import eventually
from tests.sightings import a_hash, a_scope, a_sighting
from worker.adapters.redis_contents import RedisContents
from worker.adapters.sighting_file import SightingFile
from worker.adapters.system_clock import SystemClock
from worker.contents import ContentName
from worker.dev.servers import RedisAt
from worker.operation.forgetting import Deletion
from worker.operation.listening import listening
from worker.operation.noting import noting_contents
from worker.settings.tree import Settings
from worker.telemetry.metrics import InMemoryRecorder

CAT = a_hash("cat")
POST = ContentName("acme", "post-1")

pytestmark = pytest.mark.servers


@pytest.fixture
def settings(redis_server: RedisAt, tmp_path: Path) -> Settings:
    """
    A namespace of its own, and an archive in a file.
    """
    redis = {"url": redis_server.url, "namespace": uuid4().hex, "connect_timeout_s": 5, "timeout_s": 5}
    embeddings = {"keep": "file", "path": tmp_path / "embeddings.sqlite"}
    return Settings.model_validate({"redis": redis, "embeddings": embeddings})


@pytest.fixture
def archive(settings: Settings) -> Iterator[SightingFile]:
    """
    The archive, which keeps a cat.
    """
    assert settings.embeddings.path is not None
    file = SightingFile(
        settings.embeddings.path, a_scope(), recorder=InMemoryRecorder(), clock=SystemClock(), retention_s=None
    )
    with closing(file):
        file.keep({CAT: a_sighting(CAT)})
        yield file


def test_what_nobody_took_is_forgotten_at_the_end(settings: Settings, archive: SightingFile) -> None:
    """
    The archive has forgotten, the name expires within the day, and no mark of bytes was made for others to answer.
    """
    with noting_contents(settings, InMemoryRecorder()) as noting:
        noting.noticed.add([Deletion(POST, (CAT,))])
    left = archive.recall([CAT])
    with closing(Redis.from_url(settings.redis.url.get_secret_value())) as redis:
        marks = list(redis.scan_iter(match=f"touchstone:{settings.redis.namespace}:g*"))

    assert {} == left
    assert [] == marks


def test_an_archive_that_is_open_is_not_opened_again(settings: Settings, archive: SightingFile) -> None:
    """
    What a worker has open forgets, while it runs and at its end, also where its path no longer leads to it.
    """
    nowhere = settings.embeddings.model_copy(update={"path": Path("/nonexistent/embeddings.sqlite")})
    moved = settings.model_copy(update={"embeddings": nowhere})
    recorder = InMemoryRecorder()
    with (
        noting_contents(moved, recorder, archive) as noting,
        listening(moved, InFlight(CAT), recorder, noting, archive, client="test"),
    ):
        forgotten = eventually(lambda: archive.recall([CAT]) == {})
    archive.keep({CAT: a_sighting(CAT)})
    with capture_logs() as lines, noting_contents(moved, recorder, archive) as noting:
        noting.noticed.add([Deletion(POST, (CAT,))])

    assert forgotten
    assert {} == archive.recall([CAT])
    assert [] == lines


def test_a_content_that_is_gone_is_noticed_through_redis(settings: Settings) -> None:
    """
    What one process marks as gone, another is told when it notes it.
    """
    with (
        closing(RedisContents(settings.redis, keep_s=60)) as one,
        closing(RedisContents(settings.redis, keep_s=60)) as two,
    ):
        one.mark_gone([POST])
        told = two.note([(POST, CAT)])

    assert {POST} == told


def test_what_cannot_be_forgotten_at_the_end_is_named(settings: Settings) -> None:
    """
    The bytes stand in the log with what to do, because nobody else will try; the content's id does not.
    """
    nowhere = settings.embeddings.model_copy(update={"path": Path("/nonexistent/embeddings.sqlite")})
    with (
        capture_logs() as lines,
        noting_contents(settings.model_copy(update={"embeddings": nowhere}), InMemoryRecorder()) as noting,
    ):
        noting.noticed.add([Deletion(POST, (CAT,))])
    (told,) = [line for line in lines if line["event"] == "contents.left_unforgotten"]

    assert [CAT] == told["sha256"]
    assert {"archive"} == set(told["failed"])
    assert "post-1" not in str(told)
