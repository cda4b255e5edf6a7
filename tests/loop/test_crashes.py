"""
Crashes: what cannot be contained ends the process, soon and loudly, and leaves nothing behind that would be lost.
"""

import time

import pytest

from schemas.errors import ErrorCode
from tests.loop_rig import Run, Tuning, Worker
from tests.loop_seams import PATIENCE_S, Seam, ThreadKilled
from tests.loop_world import MISSING, World, eventually
from worker.errors import CannotStart, UploadFailed, WorkerCrashed

EARLIER = [f"earlier-{number}" for number in range(6)]
COMPANIONS = [f"companion-{number}" for number in range(6)]
VICTIM = "victim"

AT_LEAST_ONCE, EXACTLY_ONCE = Tuning(), Tuning(delivery="exactly_once")

KILLED: list[tuple[Seam, str]] = [
    ("read_event", "fetch-"),
    ("fetch", "fetch-"),
    ("recall", "recall"),
    ("decode", "decode-"),
    ("encode", "encode"),
    ("bank", "judge"),
    ("judge", "judge"),
    ("fail", "fetch-"),
    ("dead_letter", "fetch-"),
    ("remember", "remember"),
]
"""Each seam in a thread of the pipeline, and the beginning of that thread's name."""


def publish_victim(world: World, seam: Seam) -> None:
    """
    A victim that comes by this seam, among companions.
    """
    for number, name in enumerate(COMPANIONS[:3]):
        world.publish(name, partition=number)
    if seam == "dead_letter":
        world.publish_raw(VICTIM, b"no json", partition=1)
    else:
        world.publish(VICTIM, partition=1, picture=MISSING if seam == "fail" else VICTIM)
    for number, name in enumerate(COMPANIONS[3:]):
        world.publish(name, partition=number)


def run_into(world: World, tuning: Tuning, seam: Seam, fault: BaseException) -> tuple[Worker, Run]:
    """
    A worker that has done and committed some work when it meets the fault.
    """
    worker = Worker(world, tuning)
    for number, name in enumerate(EARLIER):
        world.publish(name, partition=number % 3)
    worker.step_until(world.all_committed)
    worker.seams.fail(seam, VICTIM, fault)
    publish_victim(world, seam)
    return worker, worker.start()


def require_that_a_second_run_finishes(world: World, crashed: Worker) -> None:
    """
    The next worker answers everything; what the first had answered already is answered under the same ids.
    """
    world.require_nothing_committed_early()
    crashed.vanish()
    Worker(world, crashed.tuning).finish()
    names = {*EARLIER, *COMPANIONS, VICTIM}
    ids = {(one.content_id, one.verdict_id) for one in world.verdicts()}
    ends = world.ends()

    assert names == set(ends)
    assert len(world.verdicts()) == len(ids) or crashed.tuning.delivery == "at_least_once"
    assert len(names) == len(ids) + len({one.original.offset for one in world.dead_letters()})
    if crashed.tuning.delivery == "exactly_once":
        assert all(len(found) == 1 for found in ends.values())


@pytest.mark.parametrize("tuning", [AT_LEAST_ONCE, EXACTLY_ONCE], ids=lambda tuning: tuning.delivery)
@pytest.mark.parametrize(("seam", "thread"), KILLED)
def test_a_thread_that_is_killed_ends_the_run(world: World, tuning: Tuning, seam: Seam, thread: str) -> None:
    """
    Whichever thread dies, the run ends with its name; what it had in hand stays uncommitted, and a second run does it.
    """
    worker, run = run_into(world, tuning, seam, ThreadKilled("killed"))
    fault = run.fault()

    assert isinstance(fault, WorkerCrashed)
    assert str(fault).startswith(f"thread {thread}")
    assert "ThreadKilled" in str(fault)
    if seam != "remember":
        assert world.positions[VICTIM] not in world.answered()
        assert world.committed(1) <= world.positions[VICTIM][1]
    require_that_a_second_run_finishes(world, worker)


@pytest.mark.parametrize("tuning", [AT_LEAST_ONCE, EXACTLY_ONCE], ids=lambda tuning: tuning.delivery)
@pytest.mark.parametrize(("seam", "fault"), [("encode", RuntimeError("CUDA error")), ("fail", KeyError("lost"))])
def test_a_fault_that_is_no_uploads_own_ends_the_run(
    world: World, tuning: Tuning, seam: Seam, fault: Exception
) -> None:
    """
    A broken device, or a failure that cannot even be told, is nothing that a verdict may hide.
    """
    worker, run = run_into(world, tuning, seam, fault)
    found = run.fault()

    assert isinstance(found, WorkerCrashed)
    assert type(fault).__name__ in str(found)
    assert found.__cause__ is fault
    assert world.committed(1) <= world.positions[VICTIM][1]
    require_that_a_second_run_finishes(world, worker)


@pytest.mark.parametrize("tuning", [AT_LEAST_ONCE, EXACTLY_ONCE], ids=lambda tuning: tuning.delivery)
@pytest.mark.parametrize("fault", [UploadFailed(ErrorCode.INTERNAL, "no"), KeyError("lost"), ThreadKilled()], ids=repr)
def test_an_outcome_that_cannot_be_written_ends_the_run(world: World, tuning: Tuning, fault: BaseException) -> None:
    """
    Without a message there is nothing to publish: the run ends, and neither this outcome nor a later one is committed.
    """
    worker, run = run_into(world, tuning, "serialise", fault)

    assert run.fault() is fault
    assert world.committed(1) <= world.positions[VICTIM][1]
    require_that_a_second_run_finishes(world, worker)


def test_an_encoder_that_answers_too_few_features_ends_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Features that cannot be matched to their pictures are never guessed at.
    """
    worker = Worker(world)
    encode = worker.encoder.encode
    monkeypatch.setattr(worker.encoder, "encode", lambda pixels: encode(pixels)[:-1])
    world.publish(*COMPANIONS)
    fault = worker.start().fault()

    assert isinstance(fault, WorkerCrashed)
    assert "the encoder answered" in str(fault)
    assert world.answered() == set()


def test_an_error_written_for_operators_keeps_its_words_and_its_exit_code(world: World) -> None:
    """
    One of our own errors is raised as it is, out of whichever thread it comes.
    """
    world.publish(VICTIM)
    worker = Worker(world)
    error = CannotStart("the GPU is gone: look at nvidia-smi")
    worker.seams.fail("encode", VICTIM, error)

    assert worker.start().fault() is error


def test_the_very_next_step_after_a_death_tells_of_it(world: World) -> None:
    """
    No silent death: the loop looks before it does anything else, so nothing is polled or committed after it.
    """
    world.publish(VICTIM)
    worker = Worker(world)
    worker.seams.fail("decode", VICTIM, ThreadKilled())
    worker.step_until(lambda: VICTIM in worker.seams.passed("decode"))
    eventually(worker.pipeline._crew._died.is_set)
    polls = len(worker.source.rooms)

    with pytest.raises(WorkerCrashed, match="ThreadKilled"):
        worker.loop.step()
    assert polls == len(worker.source.rooms)


def test_a_death_is_told_soon_even_when_nothing_happens(world: World) -> None:
    """
    A worker without events still looks after its threads several times a second.
    """
    worker = Worker(world)
    worker.seams.fail("remember", VICTIM, ThreadKilled())
    world.publish(VICTIM)
    run = worker.start()
    eventually(worker.pipeline._crew._died.is_set)
    died_s = time.monotonic()

    assert isinstance(run.fault(), WorkerCrashed)
    assert time.monotonic() - died_s < PATIENCE_S / 2  # it is 0.1 s where the machine is not busy


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_log_that_cannot_be_written_hides_no_death(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A death is remembered also when it cannot be told.
    """

    def no_room(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("worker.flow.crew.log.exception", no_room)
    world.publish(VICTIM)
    worker = Worker(world)
    worker.seams.fail("fetch", VICTIM, ThreadKilled())

    assert isinstance(worker.start().fault(), WorkerCrashed)


def test_a_death_in_the_last_moment_of_a_drain_is_told(world: World) -> None:
    """
    All is judged and committed when the thread that fills the cache dies: the exit code says so all the same.
    """
    world.publish(VICTIM)
    worker = Worker(world)
    gate = worker.seams.gate("remember", VICTIM)
    worker.step_until(world.all_committed)
    gate.wait_for_arrival()
    worker.seams.fail("remember", "*", ThreadKilled())
    worker.loop.drain()
    worker.loop.step()
    gate.open()
    eventually(worker.pipeline._crew._died.is_set)

    with pytest.raises(WorkerCrashed, match="thread remember died"):
        worker.loop._finish()
    assert world.committed() == 1
