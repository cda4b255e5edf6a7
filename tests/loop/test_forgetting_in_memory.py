"""
What a worker's process remembers is forgotten when it is told to, and computed anew when it is needed again.
"""

from dataclasses import replace

from schemas.verdict import ImageVerdictV1
from tests.fakes_forgetting import InMemoryContents
from tests.loop_rig import Tuning, Worker
from tests.loop_world import World
from worker.contents import ContentName
from worker.domain import ContentHash
from worker.flow.stage_set import StageSet
from worker.operation.forgetting import Deletion, Stores, forget
from worker.operation.noting import ContentNotes, NotingJudge
from worker.telemetry.metrics import InMemoryRecorder

CAT = "cat.png"


class NotingWorker(Worker):
    """
    A worker that notes which bytes its contents have.
    """

    def _surrounded(self, stages: StageSet) -> StageSet:
        self.index = InMemoryContents()
        self.notes = ContentNotes(self.index, self.recorder)
        return replace(stages, judge=NotingJudge(stages.judge, self.notes))


def judged(world: World, worker: Worker, content: str) -> ImageVerdictV1:
    """
    The verdict on a new upload of the cat.
    """
    world.publish(content, picture=CAT)
    worker.step_until(world.all_answered)
    return next(one for one in world.verdicts() if one.content_id == content)


def test_forgotten_bytes_are_computed_anew(world: World) -> None:
    """
    A second upload of the same bytes is recalled from the process; after they were forgotten, a third is not.
    """
    worker = Worker(world, Tuning(cached=False))
    first, second = judged(world, worker, "one"), judged(world, worker, "two")
    assert first.image is not None
    content_hash = ContentHash(first.image.sha256)
    removed = [worker.pipeline.forget([content_hash, content_hash]), worker.pipeline.forget([content_hash])]
    third = judged(world, worker, "three")
    worker.finish()

    assert [1, 0] == removed
    assert ["disabled", "hit", "disabled"] == [one.cache.status for one in (first, second, third)]
    assert first.outcome == third.outcome


def test_bytes_that_were_never_seen_are_forgotten_too(world: World) -> None:
    """
    Forgetting what is not there is no error, and harms nobody else.
    """
    worker = Worker(world, Tuning(cached=False))
    judged(world, worker, "one")
    removed = worker.pipeline.forget([ContentHash("0" * 64)])
    second = judged(world, worker, "two")
    worker.finish()

    assert 0 == removed
    assert "process" == second.cache.tier


def test_every_content_of_the_same_bytes_is_noted_and_one_forgets_for_all(world: World) -> None:
    """
    Computed, recalled or shared, a content's bytes are noted; forgetting one content forgets the bytes they share.
    """
    worker = NotingWorker(world, Tuning(cached=False))
    first = judged(world, worker, "one")
    judged(world, worker, "two")
    worker.notes.close()
    worker.notes.work()
    assert first.image is not None
    content_hash = ContentHash(first.image.sha256)
    names = {content: ContentName(first.tenant_id, content) for content in ("one", "two")}
    noted = dict(worker.index.named)
    stores = Stores(worker.index, {"process": worker.pipeline, "redis": worker.index})
    forgotten = forget([Deletion(names["one"])], stores, InMemoryRecorder())
    third = judged(world, worker, "three")
    worker.finish()

    assert {names["one"]: {content_hash}, names["two"]: {content_hash}} == noted
    assert 1 == forgotten.removed["process"]
    assert "disabled" == third.cache.status
    assert {names["one"]} == worker.index.gone
