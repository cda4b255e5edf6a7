"""
Animations through the whole worker: embedded once, judged by their deciding frame, remembered and recalled whole.
"""

from dataclasses import replace

from tests.bank_builders import GENERATED, REAL
from tests.fake_encoder import SPEC
from tests.hidden_frames import AS_WORKERS_DO, hiding_generated, scene
from tests.loop_rig import Tuning, Worker
from tests.loop_world import World, each
from worker.flow.stage_set import StageSet
from worker.ports import EmbeddingCache
from worker.stages.decode import PillowDecoder

FRAME = 6


class LookingWorker(Worker):
    """
    A worker that looks at animations and grounds as one does by default.
    """

    def _stages(self, cache: EmbeddingCache | None) -> StageSet:
        return replace(super()._stages(cache), decoder=PillowDecoder(SPEC, AS_WORKERS_DO, None))


def test_an_animation_is_judged_by_its_hidden_frame_however_it_comes_to_be_known(world: World) -> None:
    """
    New, shared with a twin in flight, from this process and from the cache of another, the verdict is the same.
    """
    hidden, alone = hiding_generated("GIF", 40, FRAME)
    world.shelf.pictures |= {"hidden.gif": hidden, "alone.gif": alone, "scene.gif": scene("GIF")}
    names = ["one", "two", "three"]
    worker = LookingWorker(world, Tuning(recent_embeddings=8))
    gate = worker.seams.gate("encode", "hidden.gif")
    world.publish(*names, picture="hidden.gif")
    world.publish("alone", picture="alone.gif")
    world.publish("scene", picture="scene.gif")
    gate.open()
    worker.finish()
    later = LookingWorker(world, name="later")
    world.publish("recalled", picture="hidden.gif")
    later.finish()
    found = {one.content_id: one for one in world.verdicts()}

    assert each([*names, "alone", "scene", "recalled"], "judged") == world.ends()
    assert 8 == worker.seams.passed("encode").count("hidden.gif")
    assert [] == later.seams.passed("encode")
    assert "hit" == found["recalled"].cache.status
    assert {GENERATED} == {found[name].outcome.label for name in [*names, "alone", "recalled"]}
    assert REAL == found["scene"].outcome.label
    assert {(FRAME, 8)} == {
        (found[name].evidence.frame, len(found[name].image.frames_scored))  # type: ignore[union-attr] # they are judged
        for name in [*names, "recalled"]
    }
    assert 1 == len({found[name].outcome.model_dump_json() for name in [*names, "recalled"]})
