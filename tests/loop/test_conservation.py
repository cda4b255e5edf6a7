"""
Conservation: every event that is consumed ends as exactly one outcome, or the process ends and nothing is lost.
"""

import io
from dataclasses import replace

import pytest
from PIL import Image

from schemas.errors import ErrorCode
from tests.bank_builders import a_picture
from tests.loop_rig import Tuning, Worker
from tests.loop_seams import Seam
from tests.loop_world import MISSING, World, each
from tests.pictures import png_that_announces
from worker.domain import ContentHash
from worker.errors import UploadFailed
from worker.views import DecodedPicture

VICTIM = "victim"
COMPANIONS = [f"companion-{number}" for number in range(8)]


def publish_victim_and_companions(world: World) -> None:
    """
    Eight good uploads, and in their middle the victim.
    """
    for number, name in enumerate([*COMPANIONS[:4], VICTIM, *COMPANIONS[4:]]):
        world.publish(name, partition=number % 3)


def a_black_picture() -> bytes:
    """
    What the encoder of these tests can be made to answer with NaN.
    """
    out = io.BytesIO()
    Image.new("RGB", (48, 40)).save(out, format="PNG")
    return out.getvalue()


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_every_kind_of_event_ends_once(world: World, delivery: str) -> None:
    """
    Good, unreadable, unfetchable, undecodable or out of numbers: each event has exactly one outcome, and is committed.
    """
    world.shelf.pictures |= {"black": a_black_picture(), "text": b"no picture", "bomb": png_that_announces(9999, 9999)}
    world.shelf.pictures |= {"empty": b"", "cut": a_picture(1)[:150]}
    for number in range(30):
        world.publish(f"good-{number}", partition=number % 3, picture=f"picture-{number % 20}")
    for number, picture in enumerate(["black", "text", "bomb", "empty", "cut", MISSING]):
        world.publish(picture, partition=number % 3, picture=picture)
    world.publish_raw("no json", b"\xff", partition=1)
    world.publish_raw("no value", b"", partition=2)
    worker = Worker(world, Tuning(delivery="exactly_once" if delivery == "exactly_once" else "at_least_once"))
    worker.encoder.nan_below = 0.001

    report = worker.finish()

    expected = {f"good-{number}": ["judged"] for number in range(30)} | {
        "black": [ErrorCode.ENCODE_NONFINITE],
        "text": [ErrorCode.FORMAT_UNSUPPORTED],
        "bomb": [ErrorCode.DECODE_BOMB],
        "empty": [ErrorCode.FETCH_EMPTY],
        "cut": [ErrorCode.DECODE_TRUNCATED],
        MISSING: [ErrorCode.FETCH_NOT_FOUND],
        "no json": ["dead letter: EVENT_INVALID"],
        "no value": ["dead letter: EVENT_EMPTY"],
    }
    assert expected == world.ends()
    assert (38, 38, 0) == (report.consumed, report.released, report.abandoned)
    assert {"failed": 6, "dead_letters": 2} == {
        status: count for status, count in report.by_status.items() if status not in ("decided", "abstained")
    }


@pytest.mark.parametrize(
    ("seam", "fault", "end"),
    [
        ("read_event", KeyError("lost"), "dead letter: INTERNAL"),
        ("fetch", UploadFailed(ErrorCode.FETCH_TIMEOUT, "15 s"), "FETCH_TIMEOUT"),
        ("fetch", KeyError("lost"), "INTERNAL"),
        ("recall", UploadFailed(ErrorCode.INTERNAL, "no"), "judged"),
        ("recall", KeyError("lost"), "judged"),
        ("decode", UploadFailed(ErrorCode.DECODE_FAILED, "no"), "DECODE_FAILED"),
        ("decode", MemoryError(), "INTERNAL"),
        ("bank", UploadFailed(ErrorCode.INTERNAL, "no"), "INTERNAL"),
        ("bank", RuntimeError("no index"), "INTERNAL"),
        ("judge", UploadFailed(ErrorCode.INTERNAL, "no"), "INTERNAL"),
        ("judge", ZeroDivisionError(), "INTERNAL"),
        ("remember", KeyError("lost"), "judged"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_the_fault_of_one_upload_is_its_own_end(world: World, seam: Seam, fault: Exception, end: str) -> None:
    """
    Whatever is raised over one upload, it gets its own outcome, and its companions are judged as if nothing had been.
    """
    publish_victim_and_companions(world)
    worker = Worker(world)
    worker.seams.fail(seam, VICTIM, fault)

    worker.finish()

    assert each(COMPANIONS, "judged") | {VICTIM: [end]} == world.ends()
    assert VICTIM in worker.seams.passed(seam)


@pytest.mark.parametrize("seam", ["fetch", "decode", "judge"])
def test_an_unforeseen_fault_says_where_it_was_and_nothing_of_what_it_said(world: World, seam: Seam) -> None:
    """
    The verdict names the stage and the type; the words of an exception that nobody foresaw may hold anything.
    """
    world.publish(VICTIM)
    worker = Worker(world)
    worker.seams.fail(seam, VICTIM, ValueError("https://cdn.example/a.jpg?signature=USERDATA"))

    worker.finish()
    (verdict,) = world.verdicts()

    assert verdict.error is not None
    assert ("decide" if seam == "judge" else seam) == verdict.error.stage
    assert verdict.error.detail == "unexpected ValueError"


def test_a_decoder_that_answers_with_no_picture_fails_that_upload(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Pixels of a wrong type are found before they reach the encoder, whose fault would end the process.
    """
    publish_victim_and_companions(world)
    worker = Worker(world)
    decode = worker.pipeline._stages.decoder.decode

    def answer(data: bytes, content_hash: ContentHash) -> DecodedPicture:
        decoded = decode(data, content_hash)
        wrong = decoded.pixels.astype("float32")
        return replace(decoded, pixels=wrong) if data == world.shelf.pictures[VICTIM] else decoded

    monkeypatch.setattr(worker.pipeline._stages.decoder, "decode", answer)

    worker.finish()

    assert each(COMPANIONS, "judged") | {VICTIM: ["INTERNAL"]} == world.ends()


def test_without_memory_for_it_a_micro_batch_fails_and_the_next_goes_on(world: World) -> None:
    """
    When not even one picture fits, the pictures of that micro-batch end with the encoder's code, and no other does.
    """
    publish_victim_and_companions(world)
    worker = Worker(world)
    worker.seams.fail("encode", VICTIM, UploadFailed(ErrorCode.ENCODE_OUT_OF_MEMORY, "not one fits"))

    worker.finish()
    (failed,) = [batch for batch in worker.seams.calls["encode"] if VICTIM in batch]

    expected = {name: ["ENCODE_OUT_OF_MEMORY" if name in failed else "judged"] for name in [*COMPANIONS, VICTIM]}
    assert expected == world.ends()


def test_a_bank_that_breaks_for_good_fails_every_upload_and_no_process(world: World) -> None:
    """
    Each upload is judged again alone before it fails, so that none fails for another's sake; then it has its outcome.
    """
    publish_victim_and_companions(world)
    worker = Worker(world)
    worker.seams.fail("bank", "*", RuntimeError("the index is gone"))

    worker.finish()

    assert each([*COMPANIONS, VICTIM], "INTERNAL") == world.ends()
