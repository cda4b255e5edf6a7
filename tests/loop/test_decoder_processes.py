"""
A worker whose pictures are decoded in processes: a file that kills its process costs one upload, and no other.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from schemas.errors import ErrorCode
from tests.bank_builders import a_picture
from tests.decoding_rig import STUB, Rig, decoding, setup_of
from tests.fake_encoder import SPEC
from tests.loop_rig import Worker
from tests.loop_world import World
from worker.errors import WorkerCrashed
from worker.flow.stage_set import StageSet
from worker.ports import EmbeddingCache

OTHERS = [f"other-{number}" for number in range(50)]


@pytest.fixture
def children() -> Iterator[Rig]:
    """
    A decoder for the loop's encoder, with two children that do what the files tell them.
    """
    with decoding(replace(setup_of(), spec=SPEC), threads=2, program=STUB) as rig:
        yield rig


class InProcesses(Worker):
    """
    A worker with that decoder.
    """

    def __init__(self, world: World, children: Rig) -> None:
        self._children = children
        super().__init__(world)

    def _stages(self, cache: EmbeddingCache | None) -> StageSet:
        return replace(super()._stages(cache), decoder=self._children.decoder)


@pytest.mark.parametrize(
    ("does", "code"),
    [
        ("segfault", ErrorCode.DECODE_CRASHED),
        ("garbage", ErrorCode.DECODE_CRASHED),
        ("eat", ErrorCode.DECODE_BOMB),
    ],
)
def test_a_file_that_kills_its_process_costs_one_upload(
    world: World, children: Rig, does: str, code: ErrorCode
) -> None:
    """
    Among fifty others, each of which is judged; the worker goes on.
    """
    world.shelf.pictures["hostile"] = a_picture(1) + f"stub:{does}".encode()
    for number, name in enumerate([*OTHERS[:25], "hostile", *OTHERS[25:]]):
        world.publish(name, partition=number % 3)
    worker = InProcesses(world, children)
    worker.finish()
    ends = world.ends()

    assert ends.pop("hostile") == [code]
    assert ends == {name: ["judged"] for name in OTHERS}


def test_a_decoder_that_is_lost_ends_the_worker(world: World, children: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where no process can be started any more the worker ends with the reason, and fails no upload for it.
    """
    monkeypatch.setattr(children.decoder, "decode", lost)
    for name in OTHERS[:5]:
        world.publish(name)
    fault = InProcesses(world, children).start().fault()

    assert isinstance(fault, WorkerCrashed)
    assert "5 times in a row" in str(fault)
    assert world.verdicts() == []
    assert world.committed() == 0


def lost(*_: object) -> None:
    """
    A decoder that has given up.
    """
    raise WorkerCrashed("5 times in a row: a decoder process cannot be started")
