"""
The encoder on ONNX Runtime and OpenVINO: near to torch, with an identity of its own, and refused where it is not right.
"""

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from schemas.errors import ErrorCode
from tests.builders import a_fingerprint
from tests.conftest import ROOT
from tests.exported_encoders import EXPORTED, SHELF, exported, require_backend, small_model
from tests.pictures import photograph
from tests.small_encoder import CountingRecorder, encoder_settings, loaded
from worker.adapters import clip_export, exported_encoder
from worker.adapters.exported_encoder import ExportedEncoder
from worker.adapters.exported_runtime import Features, Pictures, Session, require_quantised
from worker.bank.fit import MIN_PROBE_COSINE
from worker.domain import Pixels
from worker.encoders import encode_threads, load_encoder
from worker.errors import EncoderInvalid, UploadFailed
from worker.settings.tree import EncoderSettings

HOSTILE = np.where(np.indices((64, 64)).sum(axis=0)[..., np.newaxis] % 2 == 0, 255, 0).astype(np.uint8).repeat(3, 2)
"""A picture of the strongest contrast there is."""


def pictures(count: int) -> list[Pixels]:
    """
    So many different pictures at the small encoder's input size.
    """
    return [np.asarray(photograph(64, 64, seed=n)) for n in range(count)]


def cosines(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """
    Row by row.
    """
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: NDArray[np.float32] = (left * right).sum(axis=1) / lengths
    return found


@pytest.mark.parametrize("name", EXPORTED)
def test_it_points_where_torch_points(name: str) -> None:
    """
    Of the same weights: the space is one, the cosine at least 0.999, and the id its own, told by the precision.
    """
    backend, _, precision = name.partition("-")
    encoder, reference = exported(backend, precision), loaded(small_model())
    batch = pictures(9)
    mine, theirs = encoder.fingerprint, reference.fingerprint

    assert cosines(reference.encode(batch), encoder.encode(batch)).min() > 0.999
    assert (theirs.space, theirs.dim, theirs.model) == (mine.space, mine.dim, mine.model)
    assert theirs.preprocess == mine.preprocess
    assert mine.id != theirs.id
    assert mine.precision.startswith(precision)
    assert mine.precision.endswith(f"-{backend}")


def test_no_two_of_them_share_an_id() -> None:
    """
    Every backend and precision has vectors and a cache of its own.
    """
    found = [exported(*name.split("-")).fingerprint for name in EXPORTED]

    assert len(EXPORTED) == len({one.id for one in found}) == len({one.precision for one in found})


def test_the_contract_takes_any_name_of_a_precision() -> None:
    """
    A reader of today's schema accepts verdicts that name a runtime in ``versions.encoder.precision``.
    """
    schema = json.loads((ROOT / "schemas" / "json" / "image.verdict.v1.schema.json").read_text())

    assert {"type": "string"} == schema["$defs"]["EncoderVersion"]["properties"]["precision"]


@pytest.mark.parametrize("name", EXPORTED)
def test_a_hostile_companion_changes_nothing(name: str) -> None:
    """
    The strongest contrast beside a picture leaves its features what they are alone.
    """
    encoder = exported(*name.split("-"))
    victim = (np.asarray(photograph(64, 64, seed=1)) // 16 + 120).astype(np.uint8)
    alone, beside = encoder.encode([victim])[0], encoder.encode([victim, *[HOSTILE] * 7])[0]

    assert np.abs(alone - beside).max() / np.linalg.norm(alone) <= 1e-6


def test_int8_of_onnxruntime_would_mix_pictures_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Why it takes one at a time: run together, the same file gives a picture other features beside a hostile one.
    """
    require_backend("onnxruntime", "int8")
    onnxruntime = importlib.import_module("worker.adapters.onnx_library").onnxruntime
    opened: list[str] = []
    real = onnxruntime.InferenceSession

    def noted(file: str, *rest: object, **more: object) -> object:
        opened.append(file)
        return real(file, *rest, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    exported("onnxruntime", "int8")
    together = real(opened[0], providers=["CPUExecutionProvider"])
    victim = (np.asarray(photograph(64, 64, seed=1)) // 16 + 120).astype(np.uint8)
    alone = together.run(None, {"pixels": victim[np.newaxis]})[0][0]
    beside = together.run(None, {"pixels": np.stack([victim, HOSTILE])})[0][0]

    assert np.abs(alone - beside).max() / np.linalg.norm(alone) > 1e-4


def test_a_second_start_exports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is kept is used, and gives the same encoder; bf16 needs no files beside those of fp32.
    """
    first = exported("openvino")

    def fail(*_: object) -> None:
        raise AssertionError("exported again")

    monkeypatch.setattr(clip_export, "export_tower", fail)
    second, rough = exported("openvino"), exported("openvino", "bf16")

    assert first.fingerprint == second.fingerprint
    assert np.array_equal(first.encode(pictures(3)), second.encode(pictures(3)))
    assert "bf16-openvino" == rough.fingerprint.precision


def test_exporting_leaves_torch_as_it_was() -> None:
    """
    Its fused attention is off during the export only.
    """
    exported("onnxruntime")

    assert torch.backends.mha.get_fastpath_enabled()


def test_the_configured_backend_is_loaded() -> None:
    """
    One way to load any encoder; a CPU runtime is called by as many threads as are configured, as torch is.
    """
    require_backend("onnxruntime")
    settings = encoder_settings(small_model(), backend="onnxruntime", export_dir=SHELF)

    assert isinstance(load_encoder(settings, CountingRecorder()), ExportedEncoder)
    assert 1 == encode_threads(EncoderSettings(backend="openvino", threads=2))
    assert 3 == encode_threads(EncoderSettings(backend="openvino", instances=3))


@pytest.mark.parametrize(("threads", "instances"), [(1, 1), (1, 3), (3, 1), (2, 2), (4, 4)])
def test_callers_and_the_pool_together_are_as_many_threads_as_the_room(threads: int, instances: int) -> None:
    """
    ONNX Runtime has one pool for all callers, who compute beside it: it starts what is wanting beside them.
    """
    exported("onnxruntime")  # torch, which exports it once, starts threads as well
    before = set(Path("/proc/self/task").iterdir())
    encoder = exported("onnxruntime", threads=threads, instances=instances)
    started = len(set(Path("/proc/self/task").iterdir()) - before)

    assert threads * instances == started + instances
    assert (2, encoder.fingerprint.dim) == encoder.encode(pictures(2)).shape


def test_a_tower_of_convolutions_is_not_called_int8() -> None:
    """
    Quantising a fiftieth of the weights would bring a name and nothing else.
    """
    with pytest.raises(EncoderInvalid, match="only 2% of this tower's weights"):
        require_quantised(2, 100)
    require_quantised(90, 100)


def limited(most: int) -> tuple[ExportedEncoder, CountingRecorder, list[int]]:
    """
    An encoder whose memory holds so many pictures; its feature is each picture's mean.
    """
    sizes: list[int] = []
    recorder = CountingRecorder()

    def run(batch: Pictures) -> Features:
        sizes.append(len(batch))
        if len(batch) > most:
            raise MemoryError("std::bad_alloc")
        means: Features = batch.mean(axis=(1, 2)).astype(np.float32)
        return means

    fingerprint = a_fingerprint(dim=3)
    return ExportedEncoder(Session(run, "fp32-test", 8), fingerprint, recorder=recorder), recorder, sizes


@pytest.mark.parametrize("count", [1, 3, 8, 13, 32])
def test_out_of_memory_halves_the_batch_and_goes_on(count: int) -> None:
    """
    At most eight in one run, fewer where they do not fit; features come in the order of the pictures.
    """
    encoder, recorder, sizes = limited(3)
    batch = pictures(count)
    features = encoder.encode(batch)

    np.testing.assert_allclose([one.mean(axis=(0, 1)) for one in batch], features, rtol=1e-5)
    assert max(sizes) <= 8
    assert sum(size > 3 for size in sizes) == recorder.counts.get("encoder_out_of_memory_total", 0)


def test_one_picture_without_room_fails_as_an_upload() -> None:
    """
    When not even one picture fits, the uploads fail with a code that says so.
    """
    encoder, recorder, _ = limited(0)
    with pytest.raises(UploadFailed, match="bad_alloc") as caught:
        encoder.encode(pictures(4))

    assert ErrorCode.ENCODE_OUT_OF_MEMORY == caught.value.code
    assert 3 == recorder.counts["encoder_out_of_memory_total"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda found: -found, "cosine -1.0"),
        (lambda found: found * np.nan, "no finite"),
        (lambda found: found[:, 1:], "no finite"),
    ],
)
def test_kernels_that_compute_something_else_are_refused(
    spoil: Callable[[Features], Features], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    At every start one picture must lie where torch put it when the tower was exported.
    """
    exported("onnxruntime")
    real = exported_encoder._tried

    def tried(session: Session, *rest: object) -> int:
        spoilt = Session(lambda batch: spoil(session.run(batch)), session.precision, session.at_once)
        return real(spoilt, *rest)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(exported_encoder, "_tried", tried)

    with pytest.raises(EncoderInvalid, match=said):
        exported("onnxruntime")


@pytest.mark.parametrize("fault", [RuntimeError("illegal instruction"), MemoryError("std::bad_alloc")])
def test_a_first_picture_that_fails_is_told(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A runtime that opens what it cannot run refuses the start with what it said.
    """
    exported("onnxruntime")
    runtime = exported_encoder._runtime("onnxruntime")

    def run(_batch: Pictures) -> Features:
        raise fault

    monkeypatch.setattr(runtime, "open_session", lambda *_: Session(run, "fp32-onnxruntime", 8))

    with pytest.raises(EncoderInvalid, match=rf"cannot encode one picture here \({type(fault).__name__}: {fault}"):
        exported("onnxruntime")


def test_bf16_is_held_to_the_cosine_that_banks_ask_for() -> None:
    """
    A start takes no bf16 whose trial lies further from fp32 than a bank's probe may.
    """
    assert MIN_PROBE_COSINE <= exported_encoder.MIN_TRIAL_COSINE["bf16"] <= exported_encoder.MIN_TRIAL_COSINE["fp32"]
