"""
The way to an accelerator and back, on the CPU: what is padded, what is recorded, what a fault leaves behind.

The streams do nothing here; that copies and passes overlap on a GPU is not shown by these tests.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs

from tests.pictures import photograph, spec_of
from tests.small_encoder import CountingRecorder, encoder_settings, loaded
from worker.adapters import clip_encoder, clip_graphs
from worker.adapters.clip_encoder import COMPOSITION_TOLERANCE, ClipEncoder, load_encoder
from worker.adapters.clip_graphs import Forward, Graphs, Recorded
from worker.adapters.clip_lanes import LANES, Lanes
from worker.adapters.clip_tower import Tower
from worker.dev.small_encoder import SmallEncoder, write_small_encoder
from worker.domain import EncoderFingerprint, Pixels
from worker.errors import EncoderInvalid, UploadFailed

CPU = torch.device("cpu")
SIDE = 8


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallEncoder:
    """
    One small model folder for the file.
    """
    return write_small_encoder(tmp_path_factory.mktemp("small"))


def pictures(count: int, *, side: int = SIDE) -> list[Pixels]:
    """
    So many different pictures.
    """
    return [np.asarray(photograph(side, side, seed=n)) for n in range(count)]


def means(images: torch.Tensor) -> torch.Tensor:
    """
    A forward pass whose feature is each picture's mean colour.
    """
    return images.to(torch.float32).mean(dim=(1, 2))


@dataclass
class Tape:
    """
    Records passes as a CUDA device does: the pass runs once, and replaying runs it over the same place in memory.
    """

    recorded: list[int] = field(default_factory=list)
    replayed: list[int] = field(default_factory=list)
    fault: Callable[[int], None] = lambda _: None

    def __call__(self, forward: Forward, pixels: torch.Tensor) -> Recorded:
        """
        Record a pass.
        """
        self.fault(len(pixels))
        self.recorded.append(len(pixels))
        features = forward(pixels)

        def replay() -> None:
            self.replayed.append(len(pixels))
            features.copy_(forward(pixels))

        return Recorded(pixels, features, replay)


def lanes_of(
    forward: Forward, tape: Tape | None = None, *, lanes: int = LANES, side: int = SIDE, dim: int = 3
) -> Lanes:
    """
    Lanes on the CPU.
    """
    return Lanes(Graphs(forward, tape), shape=(side, side, 3), dim=dim, device=CPU, lanes=lanes)


@pytest.mark.parametrize("lanes", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 3, 9, 40, 300])
def test_features_come_in_order(count: int, lanes: int) -> None:
    """
    However many pieces a batch is cut into and however few lanes there are, each picture has its own features.
    """
    batch, tape = pictures(count), Tape()
    found = lanes_of(means, tape, lanes=lanes)
    expected = np.stack([one.mean(axis=(0, 1)) for one in batch])

    for _ in range(2):
        np.testing.assert_allclose(expected, found.features(batch), rtol=1e-5)
    assert sorted(set(tape.recorded)) == sorted(tape.recorded)
    assert 2 * len(tape.recorded) <= len(tape.replayed)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_padding_changes_no_picture(small: SmallEncoder, precision: str) -> None:
    """
    Padded to a bucket and cut into pieces, a picture keeps its unit vector within the tolerance of its precision.
    """
    encoder = loaded(small, precision=precision)
    lanes = lanes_of(encoder._forward, Tape(), side=64, dim=encoder.fingerprint.dim)
    batch = pictures(13, side=64)
    alone = np.concatenate([encoder.encode([one]) for one in batch])
    units = [alone / np.linalg.norm(alone, axis=1, keepdims=True)]
    for count in (13, 3, 5, 7):
        found = np.concatenate([lanes.features(batch[at : at + count]) for at in range(0, 13, count)])
        units.append(found / np.linalg.norm(found, axis=1, keepdims=True))

    assert max(np.abs(units[0] - other).max() for other in units[1:]) <= COMPOSITION_TOLERANCE[precision]


def test_threads_share_the_lanes() -> None:
    """
    More threads than lanes, each with batches of several pieces: nobody waits for ever, and nobody gets another's.
    """
    lanes, batch = lanes_of(means, Tape()), pictures(45)
    starts = [number % 20 for number in range(60)]
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda start: lanes.features(batch[start:]), starts))

    for start, features in zip(starts, found, strict=True):
        np.testing.assert_allclose(np.stack([one.mean(axis=(0, 1)) for one in batch[start:]]), features, rtol=1e-5)


def test_passes_take_turns() -> None:
    """
    Two passes are never recorded or replayed at the same time: graphs share their memory.
    """
    inside, most, turn = 0, 0, threading.Lock()

    def watched(images: torch.Tensor) -> torch.Tensor:
        nonlocal inside, most
        with turn:
            inside += 1
            most = max(most, inside)
        found = means(images)
        with turn:
            inside -= 1
        return found

    lanes = lanes_of(watched)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: lanes.features(pictures(5)), range(40)))

    assert 1 == most


def test_a_pass_that_cannot_be_recorded_runs_as_it_is() -> None:
    """
    Where recording fails, that is said once, and the features are the same.
    """

    def broken(_: int) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    lanes, batch = lanes_of(means, Tape(fault=broken)), pictures(9)
    with capture_logs() as lines:
        found = [lanes.features(batch) for _ in range(3)]

    assert all(np.allclose(np.stack([one.mean(axis=(0, 1)) for one in batch]), each, rtol=1e-5) for each in found)
    assert ["encoder.cuda_graphs_off"] == [line["event"] for line in lines]
    assert "operation not permitted when stream is capturing" == lines[0]["error"]


def test_without_room_to_record_the_batch_is_halved() -> None:
    """
    Lack of memory is no reason to give recording up: smaller batches are recorded, and uploads get their features.
    """

    def large(count: int) -> None:
        if count > 4:
            raise torch.OutOfMemoryError(f"tried to allocate {count} pictures")

    tape, recorder, batch = Tape(fault=large), CountingRecorder(), pictures(14)
    fingerprint = EncoderFingerprint("means", "", "", spec_of(SIDE), "bf16", 3, "", "")
    encoder = ClipEncoder(means, fingerprint, device=CPU, recorder=recorder, lanes=lanes_of(means, tape))
    found = encoder.encode(batch)

    np.testing.assert_allclose(np.stack([one.mean(axis=(0, 1)) for one in batch]), found, rtol=1e-5)
    assert {4} == set(tape.recorded)
    assert recorder.counts["encoder_out_of_memory_total"] == 2


def test_what_did_not_fit_is_not_tried_again() -> None:
    """
    A batch that was too large once is cut from then on, and said once for each bucket that was too large.
    """

    def large(count: int) -> None:
        if count > 4:
            raise torch.OutOfMemoryError(f"tried to allocate {count} pictures")

    recorder = CountingRecorder()
    fingerprint = EncoderFingerprint("means", "", "", spec_of(SIDE), "bf16", 3, "", "")
    encoder = ClipEncoder(means, fingerprint, device=CPU, recorder=recorder, lanes=lanes_of(means, Tape(fault=large)))
    with capture_logs() as lines:
        for _ in range(3):
            encoder.encode(pictures(16))

    assert [16, 8] == [line["pictures"] for line in lines if line["event"] == "encoder.batch_too_large"]
    assert recorder.counts["encoder_out_of_memory_total"] == 2


@pytest.mark.parametrize(("size", "buckets"), [(1, [1]), (6, [1, 2, 4, 8]), (32, [1, 2, 4, 8, 16, 32])])
def test_passes_are_recorded_before_the_first_upload(
    small: SmallEncoder, size: int, buckets: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    When an encoder is loaded for batches of a size, all that such come to is recorded; later, nothing is.
    """
    tape = Tape()

    def lanes(_settings: object, tower: Tower, fingerprint: EncoderFingerprint, _device: object) -> Lanes:
        return lanes_of(tower.forward, tape, side=64, dim=fingerprint.dim)

    monkeypatch.setattr(clip_encoder, "_lanes", lanes)
    encoder = load_encoder(encoder_settings(small, precision="bf16"), CountingRecorder(), batch_size=size)
    at_first = list(tape.recorded)
    for count in range(1, size + 1):
        encoder.encode(pictures(count, side=64))

    assert buckets == at_first == tape.recorded


def test_a_gpu_that_cannot_record_is_found_out_at_the_start() -> None:
    """
    Before any upload: the start says so, and batches are encoded without.
    """

    def broken(_: int) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    lanes = lanes_of(means, Tape(fault=broken))
    with capture_logs() as at_start:
        lanes.prepare(8)
    with capture_logs() as later:
        lanes.features(pictures(8))

    assert ["encoder.cuda_graphs_off"] == [line["event"] for line in at_start]
    assert [] == later


@pytest.mark.parametrize("most", [1, 4])
def test_a_start_goes_as_far_as_memory_does(most: int) -> None:
    """
    The first bucket that does not fit is the last that is tried; larger batches are cut, and none is refused.
    """
    tried: list[int] = []

    def large(count: int) -> None:
        tried.append(count)
        if count > most:
            raise torch.OutOfMemoryError(f"tried to allocate {count} pictures")

    lanes = lanes_of(means, Tape(fault=large))
    lanes.prepare(32)
    at_start = list(tried)

    assert (13, 3) == lanes.features(pictures(13)).shape
    assert 2 * most == max(at_start) == at_start[-1]
    assert at_start == tried


def test_a_gpu_without_room_for_one_picture_refuses_the_start(
    small: SmallEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A worker that could encode nothing does not get ready.
    """

    def nothing(_: int) -> None:
        raise torch.OutOfMemoryError("tried to allocate\nand more")

    monkeypatch.setattr(clip_encoder, "_lanes", lambda *_: lanes_of(means, Tape(fault=nothing)))

    with pytest.raises(EncoderInvalid, match=r"tried to allocate\): free memory of the GPU"):
        load_encoder(encoder_settings(small, precision="bf16"), CountingRecorder(), batch_size=4)


def test_memory_is_given_back_while_nobody_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Out of memory on a GPU, what torch keeps is let go of; never while another thread is in a pass.
    """
    held: list[bool] = []

    def large(count: int) -> None:
        if count > 4:
            raise torch.OutOfMemoryError(f"tried to allocate {count} pictures")

    lanes = lanes_of(means, Tape(fault=large))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: held.append(lanes.turn.locked()))
    fingerprint = EncoderFingerprint("means", "", "", spec_of(SIDE), "bf16", 3, "", "")
    encoder = ClipEncoder(means, fingerprint, device=torch.device("cuda"), recorder=CountingRecorder(), lanes=lanes)
    encoder.encode(pictures(8))

    assert [True] == held
    assert not lanes.turn.locked()


def test_faults_give_every_lane_back() -> None:
    """
    After batches that broke in the middle as often as there are lanes, and more, the next one finds a free lane.
    """
    broken = True

    def sometimes(images: torch.Tensor) -> torch.Tensor:
        if broken and len(images) == 1:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return means(images)

    lanes, batch = lanes_of(sometimes), pictures(33)
    for _ in range(2 * LANES):
        with pytest.raises(RuntimeError, match="device-side"):
            lanes.features(batch)
    broken = False

    assert (33, 3) == lanes.features(batch).shape


def test_all_passes_are_recorded_on_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Memory of a pool is given again only for the stream that had it: on streams of their own graphs would share none.
    """
    asked: list[tuple[object, object]] = []

    def graph(_graph: object, *, pool: object, stream: object, capture_error_mode: str) -> nullcontext[None]:
        assert "thread_local" == capture_error_mode
        asked.append((pool, stream))
        return nullcontext()

    monkeypatch.setattr(clip_graphs, "stream_of", lambda _: MagicMock())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: MagicMock())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", MagicMock)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    record = clip_graphs.cuda_recording(CPU)
    for count in (1, 2, 8):
        record(means, torch.zeros(count, SIDE, SIDE, 3, dtype=torch.uint8))

    assert 3 == len(asked)
    assert 1 == len(set(asked))


def test_not_even_one_picture_fits() -> None:
    """
    Over lanes too, a picture without room is an upload's failure.
    """

    def nothing(_images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("tried to allocate")

    fingerprint = EncoderFingerprint("means", "", "", spec_of(SIDE), "bf16", 3, "", "")
    encoder = ClipEncoder(means, fingerprint, device=CPU, recorder=CountingRecorder(), lanes=lanes_of(nothing))

    with pytest.raises(UploadFailed, match="does not fit"):
        encoder.encode(pictures(3))
