"""
A decoder with a device: who goes there together, what happens to what it refuses, and what is believed of a child.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from schemas.errors import ErrorCode
from tests.decoding_rig import hash_of, setup_of
from tests.device_rig import MOST_BYTES, device_spec, leaving, on_device
from tests.fake_encoder import fake_embedder
from tests.pictures import ANY_HASH, encoded, photograph
from worker.bank.part_exchange import station_of
from worker.decoding.device_batches import DeviceBatches, DeviceJob, DeviceSeen
from worker.decoding.protocol import ANSWER, Answer, Expected, Garbled, Look, answered, lengths_of
from worker.errors import UploadFailed
from worker.views import Undecoded

JPEG = encoded(photograph(120, 90), "JPEG")
PATIENCE_S = 20.0


class ScriptedDevice:
    """
    Makes black pictures; waits at ``gate`` for its first batch, and has no picture for bytes that begin with ``no``.
    """

    version = "scripted"

    def __init__(self, *, fault: Exception | None = None, closed: bool = False) -> None:
        self.batches: list[list[bytes]] = []
        self.begun, self.gate = threading.Event(), threading.Event()
        self._fault = fault
        if not closed:
            self.gate.set()

    def make(self, jobs: Sequence[DeviceJob]) -> Sequence[DeviceSeen | None]:
        """
        As ``JpegDevice.make``.
        """
        self.batches.append([job.data for job in jobs])
        self.begun.set()
        assert self.gate.wait(PATIENCE_S)
        if self._fault is not None:
            raise self._fault
        black = [np.zeros((job.size[1], job.size[0], 3), np.uint8) for job in jobs]
        return [
            None if job.data.startswith(b"no") else DeviceSeen(one, None) for job, one in zip(jobs, black, strict=True)
        ]


def job(data: bytes, pixels: int = 100) -> DeviceJob:
    """
    A job of so many pixels.
    """
    return DeviceJob(data, pixels, 1, 1, (0, 0, pixels, 1), (2, 2), "bicubic")


def asked_while_busy(device: ScriptedDevice, batches: DeviceBatches, jobs: Sequence[DeviceJob]) -> list[object]:
    """
    What each job came to: the first has the device busy while the others come, in order.
    """
    with ThreadPoolExecutor(len(jobs)) as threads:
        first = threads.submit(batches.ask, jobs[0])
        assert device.begun.wait(PATIENCE_S)
        others = []
        for number, one in enumerate(jobs[1:], 1):
            others.append(threads.submit(batches.ask, one))
            end_s = time.monotonic() + PATIENCE_S
            while len(batches._queue) < number and time.monotonic() < end_s:
                threading.Event().wait(0.001)
        device.gate.set()
        return [done.exception() or done.result() for done in (first, *others)]


def test_what_comes_while_the_device_is_busy_goes_together() -> None:
    """
    And one that comes alone goes alone, at once.
    """
    device = ScriptedDevice(closed=True)
    found = asked_while_busy(
        device, DeviceBatches(device, most_bytes=MOST_BYTES), [job(b"%d" % one) for one in range(5)]
    )

    assert [[b"0"], [b"1", b"2", b"3", b"4"]] == device.batches
    assert all(isinstance(one, DeviceSeen) for one in found)


def test_a_batch_is_bounded_in_pixels() -> None:
    """
    Three bytes for each; one that is too large by itself goes alone.
    """
    device = ScriptedDevice(closed=True)
    jobs = [job(b"first"), job(b"a", 50), job(b"b", 50), job(b"c", 1), job(b"d", 500), job(b"e", 1)]
    asked_while_busy(device, DeviceBatches(device, most_bytes=300), jobs)

    assert [[b"first"], [b"a", b"b"], [b"c"], [b"d"], [b"e"]] == device.batches


def test_what_the_device_refuses_is_none_for_it_alone() -> None:
    """
    Each thread gets what its own job came to.
    """
    device = ScriptedDevice(closed=True)
    found = asked_while_busy(
        device, DeviceBatches(device, most_bytes=MOST_BYTES), [job(b"1"), job(b"no"), job(b"2"), job(b"no")]
    )

    assert [False, True, False, True] == [one is None for one in found]


def test_a_fault_of_ours_is_told_by_one_and_costs_no_other_its_picture() -> None:
    """
    Nobody waits for ever; the device is asked again by whoever comes next.
    """
    device = ScriptedDevice(fault=ValueError("ours"), closed=True)
    batches = DeviceBatches(device, most_bytes=MOST_BYTES)
    found = asked_while_busy(device, batches, [job(b"0"), job(b"1"), job(b"2")])

    assert 2 == sum(isinstance(one, ValueError) for one in found)
    assert 1 == sum(one is None for one in found)
    with pytest.raises(ValueError, match="ours"):
        batches.ask(job(b"3"))


def test_what_the_device_refuses_is_decoded_as_ever() -> None:
    """
    To the pixels that the other decoder gives, and it is counted.
    """
    refusing, ends = ScriptedDevice(), Counter[str]()
    refusing.make = lambda jobs: [None] * len(jobs)  # type: ignore[method-assign] # for this test it refuses all
    found = on_device(refusing, ends=ends).decode(JPEG, ANY_HASH)
    expected = leaving(most_pixels=1).decode(JPEG, ANY_HASH)

    assert not isinstance(expected, Undecoded)
    assert np.array_equal(expected.pixels, found.pixels)
    assert expected.facts == found.facts
    assert Counter(refused=1) == ends


def test_what_is_no_plain_jpeg_never_gets_to_the_device() -> None:
    """
    Nor does what is refused; neither is counted.
    """
    device, ends = ScriptedDevice(), Counter[str]()
    decoder = on_device(device, ends=ends)
    decoder.decode(encoded(photograph(120, 90), "PNG"), ANY_HASH)
    decoder.decode(encoded(photograph(120, 90), "JPEG", progressive=True), ANY_HASH)
    with pytest.raises(UploadFailed) as refusal:
        decoder.decode(JPEG[:-30], ANY_HASH)

    assert ErrorCode.DECODE_TRUNCATED == refusal.value.code
    assert [] == device.batches
    assert Counter() == ends


def test_the_device_is_given_the_jpeg_and_nothing_behind_it() -> None:
    """
    What follows the end marker is no part of the picture.
    """
    device = ScriptedDevice()
    on_device(device).decode(JPEG + b"and more", ANY_HASH)

    assert [[JPEG]] == device.batches


def test_a_child_that_lies_about_the_size_sends_nothing_to_the_device() -> None:
    """
    The header is read here as well: the bytes that are reserved on the device are those that it announces.
    """
    device = ScriptedDevice()
    decoder = on_device(device)
    left = leaving().decode(JPEG, ANY_HASH)
    assert isinstance(left, Undecoded)
    lie = Undecoded(left.facts.model_copy(update={"width": 64, "height": 64}), left.jpeg_bytes)
    decoder._ordinary = replace(decoder._ordinary, look_into=lambda _data, _hash: lie)
    decoder.decode(JPEG, ANY_HASH)

    assert [] == device.batches


def expected_of(device_pixels: int) -> Expected:
    """
    What an answer about the JPEG may be.
    """
    setup = replace(setup_of(), spec=device_spec(), device_pixels=device_pixels)
    return Expected(setup, hash_of(JPEG), len(JPEG))


def an_answer() -> bytes:
    """
    The frame that leaves the JPEG to the device.
    """
    return answered(leaving().decode(JPEG, hash_of(JPEG)))


def test_a_jpeg_that_is_left_comes_through_as_it_was() -> None:
    """
    Its facts and its end, without a pixel.
    """
    frame = an_answer()
    header, body = lengths_of(frame[: ANSWER.size])
    expected = expected_of(120 * 90)
    found = expected.picture(expected.answer(frame[ANSWER.size :], body), bytearray())

    assert 0 == body
    assert ANSWER.size + header == len(frame)
    assert leaving().decode(JPEG, hash_of(JPEG)) == found


@pytest.mark.parametrize(
    "change",
    [
        {"jpeg_bytes": 0},
        {"jpeg_bytes": len(JPEG) + 1},
        {"jpeg_bytes": -1},
        {"facts": None, "fault": "x"},
        {"looks": [Look(native=0).model_dump()]},
        {"orientation": 9},
        {"orientation": None},
        {"format": "PNG"},
        {"frames_scored": [0, 1]},
    ],
    ids=str,
)
def test_no_child_leaves_what_may_not_be_left(change: dict[str, object]) -> None:
    """
    Each number is looked at before anything is done with it.
    """
    frame = an_answer()
    answer = json.loads(frame[ANSWER.size :])
    answer.update({name: value for name, value in change.items() if name in Answer.model_fields})
    if answer["facts"] is not None:
        answer["facts"].update({name: value for name, value in change.items() if name not in Answer.model_fields})

    with pytest.raises(Garbled):
        expected_of(120 * 90).answer(json.dumps(answer).encode(), 0)


def test_a_child_that_was_not_told_to_leaves_nothing() -> None:
    """
    Nor a picture of more pixels than it was told.
    """
    for pixels in (0, 120 * 90 - 1):
        with pytest.raises(Garbled, match="never to be left"):
            expected_of(pixels).answer(an_answer()[ANSWER.size :], 0)


def test_a_station_says_what_its_device_decodes_with() -> None:
    """
    Actors whose devices decode otherwise must not make vectors of one bank together.
    """
    here, there = (ScriptedDevice() for _ in range(2))
    there.version = "another"
    told = [station_of(replace(fake_embedder(), decoder=on_device(device))) for device in (here, there)]

    assert "device_jpegs another, here scripted" == told[0].differences(told[1])
    assert not told[0].differences(told[0])
    assert "device_jpegs" not in station_of(fake_embedder()).decoders
