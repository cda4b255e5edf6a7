"""
Several encoder threads: micro-batches are encoded side by side, and nothing that is promised depends on it.
"""

import threading
from dataclasses import replace
from functools import partial

import pytest
from threadpoolctl import threadpool_info  # type: ignore[import-untyped] # it has no stubs

from tests.fake_encoder import FakeEncoder, fake_decoder
from tests.loop_rig import Tuning, Worker, shipped_policy, small_bank
from tests.loop_world import World
from worker.app import _limits_of, running_pipeline
from worker.flow.crew import crew_threads
from worker.flow.stage_set import StageSet
from worker.instruments import Instruments
from worker.settings.tree import EncoderSettings, RedisSettings, Settings
from worker.telemetry.metrics import InMemoryRecorder

PAIRS = Tuning(batch_size=2, batch_deadline_s=0.0, fetch_threads=6, decode_threads=6, encode_threads=3)
NAMES = [f"upload-{number}" for number in range(6)]


def test_as_many_micro_batches_are_encoded_at_once_as_there_are_threads(world: World) -> None:
    """
    Three threads are inside the encoder together, a fourth batch waits; all that is judged was judged as by one.
    """
    world.publish(*[f"upload-{number}" for number in range(16)])
    worker = Worker(world, PAIRS)
    gate = worker.seams.gate("encode")
    worker.step_until(lambda: len(worker.seams.calls["encode"]) == 3)
    worker.step_until(lambda: len(worker.seams.passed("decode")) == 16)

    assert 3 == len(worker.seams.calls["encode"])
    assert [] == world.judged(0)
    gate.open()
    worker.finish()
    assert 16 == sum(worker.encoder.batches)


@pytest.mark.parametrize(("shared", "batches"), [(True, [4, 4]), (False, [8])])
def test_threads_with_cores_of_their_own_share_what_is_left(world: World, shared: bool, batches: list[int]) -> None:
    """
    When the last one has arrived: small batches for several threads, or one for those that take turns on a device.
    """
    names = [f"upload-{number}" for number in range(8)]
    world.publish(*names)
    tuning = replace(PAIRS, batch_size=16, batch_deadline_s=3600.0, encode_threads=2, share_batches=shared)
    worker = Worker(world, tuning)
    gate = worker.seams.gate("decode", names[0])
    worker.step_until(lambda: len(worker.seams.passed("decode")) == len(names))
    assert [] == worker.encoder.batches

    gate.open()
    worker.finish()
    assert batches == worker.encoder.batches


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_batches_that_overtake_each_other_leave_in_order(world: World, delivery: str) -> None:
    """
    However the encoder threads overtake each other, the verdicts of a partition leave in the order of its uploads.
    """
    tuning = replace(PAIRS, batch_size=1, delivery="exactly_once" if delivery == "exactly_once" else "at_least_once")
    world.publish(*NAMES)
    worker = Worker(world, replace(tuning, encode_threads=len(NAMES)))
    gates = {name: worker.seams.gate("encode", name) for name in NAMES}
    worker.step_until(lambda: len(worker.seams.calls["encode"]) == len(NAMES))
    for name in reversed(NAMES[1:]):
        gates[name].open()
        worker.step_until(partial(is_judged, worker, name))

        assert [] == world.judged(0)
        assert 0 == world.committed(0)
    gates[NAMES[0]].open()
    worker.finish()
    assert NAMES == world.judged(0)
    assert NAMES[::-1] == worker.seams.passed("judge")


def is_judged(worker: Worker, name: str) -> bool:
    """
    Whether this one has come to the judge.
    """
    return name in worker.seams.passed("judge")


def test_a_fault_of_the_device_ends_the_worker_whichever_thread_meets_it(world: World) -> None:
    """
    One of several encoder threads that dies takes the worker with it, and nothing is committed past its uploads.
    """
    world.publish(*NAMES)
    worker = Worker(world, PAIRS)
    worker.seams.fail("encode", NAMES[2], RuntimeError("CUDA error"))
    fault = worker.start().fault()

    assert "thread encode-" in str(fault)
    assert world.committed(0) < len(NAMES)


def test_how_busy_the_encoder_is_counts_every_thread(world: World) -> None:
    """
    The share of busy time is that of all threads: with one of three at work it is at most a third.
    """
    world.publish(NAMES[0])
    worker = Worker(world, PAIRS)
    gate = worker.seams.gate("encode")
    worker.step_until(lambda: len(worker.seams.calls["encode"]) == 1)
    worker.step_until(lambda: worker.pipeline.load().encoder_share > 0)

    assert worker.pipeline.load().encoder_share <= 1 / 3
    gate.open()
    worker.finish()


def test_every_thread_that_searches_beside_the_encoder_is_capped(world: World) -> None:
    """
    The one that judges, and the one that recalls, which asks the bank whether a shift is wanted; no encoder thread.
    """
    told: list[str] = []

    class Capped(Worker):
        """
        A worker that notes who says that it is about to search.
        """

        def _surrounded(self, stages: StageSet) -> StageSet:
            return replace(stages, before_searching=lambda: told.append(threading.current_thread().name))

    world.publish(NAMES[0])
    Capped(world, PAIRS).finish()

    assert ["judge", "recall"] == sorted(told)


@pytest.mark.parametrize(("device", "shared"), [("cpu", True), ("cuda:0", False), ("auto", False)])
def test_the_device_says_whether_batches_are_shared(device: str, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    On a CPU the encoder threads have cores of their own; on a GPU they take turns.
    """
    monkeypatch.setattr("worker.adapters.clip_device.torch.cuda.is_available", lambda: True)
    found = _limits_of(Settings(encoder=EncoderSettings(device=device)), "replay")

    assert shared == found.share_batches


def test_the_settings_say_how_many_encode(world: World) -> None:
    """
    As many encoder threads run as encoder.instances says, and with them linear algebra has one thread.
    """
    settings = Settings(encoder=EncoderSettings(device="cpu", instances=3), redis=RedisSettings(enabled=False))
    instruments = Instruments(FakeEncoder(), fake_decoder(), small_bank(), shipped_policy())
    before = crew_threads()
    versions, recorder = instruments.versions("replay"), InMemoryRecorder()  # a live one would ask Kafka
    with running_pipeline(settings, instruments, versions, store=world.shelf, recorder=recorder):
        encoding = {thread.name for thread in crew_threads() - before if thread.name.startswith("encode")}
        pools = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    assert {"encode-0", "encode-1", "encode-2"} == encoding
    assert {1} == pools
