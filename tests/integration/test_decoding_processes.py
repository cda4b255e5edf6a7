"""
What a hostile file can make of the process that decodes it: each costs its own picture, and the next is decoded.
"""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from schemas.errors import ErrorCode, Stage
from tests.decoding_rig import LONG_S, SIZE, Rig, a_png, decoding, gone, hash_of, same, setup_of
from tests.loop_world import eventually
from tests.pictures import decoder_of, encoded, photograph
from worker.decoding.protocol import Expected, Setup
from worker.domain import ContentHash
from worker.errors import CannotStart, UploadFailed, WorkerCrashed
from worker.stages.decode import DecodeLimits
from worker.views import ViewSpec

LIES = [
    "garbage",
    "long_header",
    "long_body",
    "no_json",
    "crops",
    "frames",
    "too_few_pixels",
    "other_bytes",
    "huge",
    "other_stage",
    "nothing_said",
]


def no_process(*_: object, **__: object) -> None:
    """
    A system that has no room for another process.
    """
    raise BlockingIOError("Resource temporarily unavailable")


@pytest.fixture(scope="module")
def standing() -> Iterator[Rig]:
    """
    A decoder that many tests share: what each of them does to it must leave it whole.
    """
    with decoding(setup_of(memory_bytes=1 << 28)) as rig:
        yield rig


@pytest.fixture
def rig(standing: Rig) -> Rig:
    """
    The standing decoder, with nothing counted.
    """
    standing.endings.clear()
    return standing


def decode_several(rig: Rig) -> None:
    """
    More pictures than there are children, each of which is good for one.
    """
    for seed in range(5):
        rig.decode(a_png(seed))


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """
    The hashes of pictures that a child has the whole of: what ends it from then on costs that picture, and no other.
    """
    found: set[str] = set()

    def expected(setup: Setup, content_hash: ContentHash, length: int) -> Expected:
        found.add(content_hash)
        return Expected(setup, content_hash, length)

    monkeypatch.setattr("worker.decoding.child_process.Expected", expected)
    return found


def keepers() -> set[threading.Thread]:
    """
    The threads that keep children, of any decoder.
    """
    return {one for one in threading.enumerate() if one.name.startswith("decoder-")}


def stub(name: str) -> bytes:
    """
    Bytes that make the stub do this.
    """
    return f"stub:{name}".encode()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("segfault", "was killed by SIGSEGV"),
        ("abort", "was killed by SIGABRT"),
        ("exit", "ended with exit code 3"),
        ("close", "closed its pipe"),
        ("short", "ended with exit code 0"),
    ],
)
def test_a_child_that_dies_costs_its_picture(rig: Rig, name: str, said: str) -> None:
    """
    However the process ends over a picture, that picture fails with how it ended, and another process takes over.
    """
    failure = rig.failure(stub(name))
    next_picture = rig.decode(a_png())

    assert (ErrorCode.DECODE_CRASHED, Stage.DECODE) == (failure.code, failure.stage)
    assert said in failure.detail
    assert rig.endings == ["crashed"]
    assert next_picture.facts.width == 24


@pytest.mark.parametrize("name", ["hang", "sleep"])
def test_a_child_that_hangs_is_killed(name: str) -> None:
    """
    A process that does not answer in time is gone, and its picture is DECODE_TIMEOUT.
    """
    with decoding(timeout_s=2.0) as rig:
        rig.decode(a_png())
        failure = rig.failure(stub(name))
        next_picture = rig.decode(a_png(1))

    assert failure.code == ErrorCode.DECODE_TIMEOUT
    assert "2 s (decode.timeout_s)" in failure.detail
    assert rig.endings == ["timeout"]
    assert next_picture.facts.width == 24


def test_cpu_time_is_limited_by_the_kernel_too() -> None:
    """
    A process whose parent does not look at its clock is ended for the CPU time that it used.
    """
    with decoding(setup_of(cpu_s=0.5)) as rig:
        failure = rig.failure(stub("hang"))

    assert failure.code == ErrorCode.DECODE_TIMEOUT
    assert "CPU" in failure.detail


@pytest.mark.parametrize("name", ["eat", "abort_for_memory"])
def test_memory_that_is_not_there_is_a_bomb(rig: Rig, name: str) -> None:
    """
    A picture that wants more memory than it may have is DECODE_BOMB, whether Python says so or native code aborts.
    """
    failure = rig.failure(stub(name))
    next_picture = rig.decode(a_png())

    assert failure.code == ErrorCode.DECODE_BOMB
    assert "decode.memory_bytes" in failure.detail
    assert rig.endings == ["out_of_memory"]
    assert next_picture.facts.width == 24


def test_a_real_picture_can_be_a_bomb() -> None:
    """
    A picture of allowed size that decoding has no memory for is DECODE_BOMB, by the real program.
    """
    large = encoded(photograph(64, 64).resize((6000, 4000)), "PNG", compress_level=1)
    with decoding(setup_of(memory_bytes=1 << 26)) as rig:
        failure = rig.failure(large)
        next_picture = rig.decode(a_png())

    assert failure.code == ErrorCode.DECODE_BOMB
    assert next_picture.facts.width == 24


@pytest.mark.parametrize("name", LIES)
def test_an_answer_that_no_decoder_gives_is_not_believed(rig: Rig, name: str) -> None:
    """
    Whatever a process writes that was taken over, nothing of it is believed or kept, and the process is gone.
    """
    failure = rig.failure(stub(name))
    next_picture = rig.decode(a_png())

    assert failure.code == ErrorCode.DECODE_CRASHED
    assert "what no decoder answers" in failure.detail
    assert failure.detail.isprintable()
    assert rig.endings == ["garbled"]
    assert next_picture.facts.width == 24


def test_an_answer_too_many_is_not_taken_for_the_next(rig: Rig) -> None:
    """
    What a process says without being asked answers no other picture: the next one is decoded by another process.
    """
    wanted = decoder_of(SIZE).decode(a_png(), "0" * 64)  # type: ignore[arg-type]  # any hash: only pixels are looked at
    with pytest.raises(UploadFailed):
        rig.decode(stub("ask_twice"))
    found = rig.decode(a_png())

    assert (found.pixels == wanted.pixels).all()
    assert rig.endings == ["idle"]


def test_words_on_standard_error_block_nobody(rig: Rig) -> None:
    """
    A library that writes megabytes to standard error loses them, and its picture is decoded.
    """
    found = rig.decode(a_png() + stub("shout"))

    assert found.facts.width == 24
    assert rig.endings == []


def test_an_unforeseen_fault_is_internal(rig: Rig) -> None:
    """
    An exception that is no UploadFailed becomes INTERNAL, printable, and the process goes on.
    """
    failure = rig.failure(stub("fault"))
    rig.decode(a_png())

    assert (ErrorCode.INTERNAL, Stage.DECODE) == (failure.code, failure.stage)
    assert "RuntimeError" in failure.detail
    assert failure.detail.isprintable()
    assert rig.endings == []


def test_a_child_is_replaced_after_so_many_pictures() -> None:
    """
    No process decodes more pictures than it may, and every picture is decoded.
    """
    with decoding(recycle_after=4) as rig:
        found = [rig.decode(a_png(number)).facts.width for number in range(12)]

    assert found == [24] * 12
    assert len(rig.endings) >= 3
    assert set(rig.endings) == {"recycled"}


def test_a_child_that_is_killed_between_two_pictures_blames_none(rig: Rig) -> None:
    """
    A process that somebody kills while it has nothing to do costs no picture.
    """
    rig.decode(a_png())
    eventually(lambda: len(rig.decoder.pids) == 2)
    for pid in rig.decoder.pids:
        os.kill(pid, signal.SIGKILL)
    found = rig.decode(a_png(1))

    assert found.facts.width == 24
    assert rig.endings.count("crashed") == 0


def test_as_many_pictures_are_decoded_at_once_as_there_are_threads(begun: set[str]) -> None:
    """
    One picture that hangs holds up no other thread's.
    """
    with decoding(threads=2) as rig, ThreadPoolExecutor(2) as pool:
        rig.decode(a_png())
        hanging = pool.submit(rig.failure, stub("sleep"))
        eventually(lambda: hash_of(stub("sleep")) in begun)
        others = [rig.decode(a_png(number)).facts.width for number in range(5)]
        was_hanging = not hanging.done()
        rig.decoder.close()

    assert others == [24] * 5
    assert was_hanging
    assert hanging.result().code == ErrorCode.DECODE_CRASHED


def test_a_program_that_cannot_start_is_told_at_once() -> None:
    """
    The first picture raises CannotStart with what the process said, and so does every other.
    """
    broken = ("python-that-is-not-there",)
    with decoding(program=broken) as rig:
        for _ in range(2):
            with pytest.raises(CannotStart, match=r"decode\.isolation"):
                rig.decode(a_png())


def test_a_program_that_ends_at_once_is_told_with_its_words() -> None:
    """
    A process that ends before it is ready is no picture's fault; what it wrote is in the message.
    """
    program = ("/bin/sh", "-c", "echo missing library >&2; exit 7")
    with (
        decoding(program=program) as rig,
        pytest.raises(CannotStart, match=r"exit code 7 before it was ready .missing library"),
    ):
        rig.decode(a_png())


def test_formats_that_cannot_be_read_are_refused_in_the_child() -> None:
    """
    What PillowDecoder refuses at its making is refused as CannotStart here too.
    """
    unreadable = replace(setup_of(), limits=DecodeLimits(formats=("PNG", "TELEX")))
    with decoding(unreadable) as rig, pytest.raises(CannotStart, match="TELEX"):
        rig.decode(a_png())


def test_starts_that_fail_later_end_it_after_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where no process can be started any more, the worker is told so, and does not try for ever.
    """
    monkeypatch.setattr("worker.decoding.nursery.FIRST_PAUSE_S", 0.001)
    with decoding(recycle_after=1) as rig:
        rig.decode(a_png())
        monkeypatch.setattr("worker.decoding.child_process.subprocess.Popen", no_process)
        with pytest.raises(WorkerCrashed, match="5 times in a row"):
            decode_several(rig)


def test_a_closed_decoder_leaves_no_process_and_no_thread(begun: set[str]) -> None:
    """
    After close all children are gone, those that hang included, and a picture is refused.
    """
    before = keepers()
    with decoding(threads=2) as rig, ThreadPoolExecutor(1) as pool:
        rig.decode(a_png())
        hanging = pool.submit(rig.failure, stub("sleep"))
        eventually(lambda: hash_of(stub("sleep")) in begun)
        eventually(lambda: len(rig.decoder.pids) == 2)
        pids = rig.decoder.pids
        rig.decoder.close()
        hanging.result(LONG_S)
        with pytest.raises(WorkerCrashed, match="closed"):
            rig.decode(a_png())

    eventually(lambda: gone(pids))
    eventually(lambda: keepers() <= before)


def test_a_decoder_that_nobody_holds_closes_itself() -> None:
    """
    The end of the object is the end of its processes.
    """
    with decoding() as rig:
        rig.decode(a_png())
        pids = rig.decoder.pids
        rig.decoder = None  # type: ignore[assignment]  # let go of

    eventually(lambda: gone(pids))


def test_it_finds_what_the_decoder_in_threads_finds() -> None:
    """
    Views, statistics and facts are the same to the last bit, also of a picture with crops.
    """
    views = ViewSpec(native_crops=4, realism=True)
    data = encoded(photograph(90, 70), "JPEG")
    with decoding(setup_of(views=views)) as rig:
        found = rig.decode(data)
    wanted = decoder_of(SIZE, views=views).decode(data, found.facts.sha256)  # type: ignore[arg-type]  # a hash in hex

    assert same(found, wanted)
    assert len(found.native) == 4
    assert not found.pixels.flags.writeable
