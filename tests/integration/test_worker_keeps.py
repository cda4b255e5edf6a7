"""
A whole worker that keeps embeddings, in a file or in the topic: what is there when it has been told to stop.
"""

from collections.abc import Callable
from hashlib import sha256

import pytest

from tests.kafka_reader import Counts
from tests.platform_side import inline, small_jpeg, upload_event
from tests.worker_rig import WorkerRig
from worker.adapters.kafka_topics import topics_of
from worker.adapters.topic_plan import WantedTopic, plan_topics
from worker.app import scope_of
from worker.domain import ContentHash
from worker.instruments import open_instruments
from worker.operation.keeping import kept_embeddings

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(300)]

UPLOADS = 60


@pytest.mark.parametrize("keep", ["file", "topic"])
def test_what_was_judged_is_kept_when_the_worker_has_stopped(new_rig: Callable[..., WorkerRig], keep: str) -> None:
    """
    After SIGTERM every picture that has a verdict is kept, and the last line says how many were.
    """
    rig = new_rig().create_topics(2)
    if keep == "file":
        rig.configure('embeddings.keep="file"', f'embeddings.path="{rig.folder / "kept.sqlite"}"')
    else:
        rig.configure('embeddings.keep="topic"', f"kafka.topics.embeddings={rig.name}-embeddings")
    pictures = [small_jpeg(seed) for seed in range(UPLOADS)]
    events = [upload_event(f"upload-{number}", inline(data)) for number, data in enumerate(pictures)]
    with topics_of(rig.settings.kafka) as topics, rig.reader() as reader:
        if keep == "topic":
            wanted = WantedTopic(f"{rig.name}-embeddings", 2, 1, {"cleanup.policy": "compact"})
            topics.apply(plan_topics([wanted], {}))
        worker = rig.start("one")
        worker.until_started()
        published = rig.publish(events)
        answered = reader.until_answered(published)
        code = worker.stop()
        instruments = open_instruments(rig.settings, Counts())
        with kept_embeddings(rig.settings, scope_of(rig.settings, instruments), Counts()) as archive:
            assert archive is not None
            found = archive.recall([ContentHash(sha256(data).hexdigest()) for data in pictures])
        if keep == "topic":
            topics.delete([f"{rig.name}-embeddings"])

    assert answered, rig.text()
    assert 0 == code, rig.text()
    assert UPLOADS == len(found)
    assert UPLOADS == worker.logged("worker.stopped")[0]["metrics"]['archive_writes_total{result="stored"}']
