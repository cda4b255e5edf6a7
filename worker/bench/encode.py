"""
How fast the encoder is alone, by precision and batch size, beside the rate at which the device multiplies matrices.

Through the worker's own encoder, as many calls at once as the worker makes. Rates of a CPU are also told by the second
of CPU time, which other processes on the machine disturb less.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final, cast, get_args

import numpy as np
import torch

from worker.adapters.clip_device import on_gpu, survey_device
from worker.adapters.clip_source import resolve
from worker.adapters.clip_tower import Precision
from worker.bench.arithmetic import Multiplication, Shape, operations_per_image, shapes_for
from worker.bench.cpu_time import cores_here
from worker.bench.encoders import BenchEncoder, bench_encoder
from worker.bench.machine import machine
from worker.bench.measurement import Measured, Reading, interleaved
from worker.bench.report import Report
from worker.bench.targets import Target
from worker.domain import Pixels
from worker.encoders import encode_threads, encodes_on_gpu, for_pipeline, load_encoder
from worker.ports import Encoder
from worker.settings.load import load_settings
from worker.settings.tree import EncoderSettings
from worker.telemetry.metrics import InMemoryRecorder

SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
TARGET_MODEL: Final = "ViT-L-14"
TARGET_PRECISION: Final = "bf16"
TARGET_SHARE: Final = 0.6
_TERA: Final = 1e12
_MODEL: Final = "encoder.model="


@dataclass(frozen=True, slots=True)
class EncodePlan:
    """
    What is swept. ``least_s`` is how long each has a turn, and at least one batch in each thread.
    """

    precisions: Sequence[str]
    sizes: Sequence[int]
    rounds: int
    least_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Turn:
    """
    What one contender did in its turn: how much of its unit by the clock and by the second of CPU time.
    """

    per_s: float
    per_cpu_s: float
    others: float


@dataclass(frozen=True, slots=True)
class _Contender:
    """
    An encoder in one precision, and the operations that one picture takes; None where they cannot be counted.
    """

    precision: str
    encoder: Encoder
    threads: int
    operations: int | None


def run_encode(
    plan: EncodePlan, sets: Sequence[str], *, folder: Path, progress: Callable[[str, int, int], None]
) -> Report:
    """
    Sweep precisions and batch sizes in turns. Raises ``EncoderInvalid`` where a precision does not run here.
    """
    asked = _encoder_settings(sets)
    made = bench_encoder(asked, folder)
    named = [*(one for one in sets if not one.startswith(_MODEL)), *made.sets()]
    contenders = [_opened(precision, named) for precision in plan.precisions]
    turns: dict[str, Callable[[], Turn]] = {}
    for one in contenders:
        for size in plan.sizes:
            batch = _batch(one.encoder, size)
            turns[f"{one.precision}, batch of {size}"] = partial(_encoding, one, batch, plan.least_s)
        if one.operations is not None:
            turns[f"{one.precision}, matrix product"] = partial(_multiplying, one.precision, asked.device, plan.least_s)
    done = 0

    def count(_name: str, _number: int) -> None:
        nonlocal done
        done += 1
        progress("encode", done, plan.rounds * len(turns))

    found = interleaved(turns, plan.rounds, on_done=count)
    return _report(plan, made, contenders, found, asked=_encoder_settings(named))


def _encoder_settings(sets: Sequence[str]) -> EncoderSettings:
    return load_settings(config=None, overlay=None, environ={}, sets=list(sets)).settings.encoder


def _opened(precision: str, named: Sequence[str]) -> _Contender:
    settings = for_pipeline(_encoder_settings([*named, f"encoder.precision={precision}"]))
    encoder = load_encoder(settings, InMemoryRecorder())
    source, spec = resolve(settings), encoder.fingerprint.preprocess
    operations = None
    if settings.backend == "torch" and precision in get_args(Precision):
        operations = operations_per_image(source.architecture, spec, cast("Precision", precision))
    return _Contender(precision, encoder, encode_threads(settings), operations)


def _batch(encoder: Encoder, size: int) -> list[Pixels]:
    side = encoder.fingerprint.preprocess.size
    pictures = np.random.default_rng(size).integers(0, 256, (size, side, side, 3), dtype=np.uint8)
    return list(pictures)


def _encoding(one: _Contender, batch: Sequence[Pixels], least_s: float) -> Turn:
    """
    Pictures per second, from as many threads as the worker would encode in.
    """
    one.encoder.encode(batch)
    before = Reading.now()
    end_s = time.perf_counter() + least_s

    def again(_: int) -> int:
        encoded = 0
        while not encoded or time.perf_counter() < end_s:
            encoded += len(one.encoder.encode(batch))
        return encoded

    with ThreadPoolExecutor(one.threads) as threads:
        pictures = sum(threads.map(again, range(one.threads)))
    return _turn(pictures, before)


def _multiplying(precision: str, device: str, least_s: float) -> Turn:
    """
    Operations per second of large products, the fastest of several shapes: they share the turn.
    """
    if device == "auto":
        device = "cuda" if on_gpu(device) else "cpu"
    place = torch.device(device)
    shapes = shapes_for(place)
    turns = [_of_shape(cast("Precision", precision), place, shape, least_s / len(shapes)) for shape in shapes]
    return max(turns, key=lambda turn: _pace(turn, gpu=place.type == "cuda"))


def _of_shape(precision: Precision, device: torch.device, shape: Shape, least_s: float) -> Turn:
    product = Multiplication(precision, device, shape)
    product()
    before = Reading.now()
    times, end_s = 0, time.perf_counter() + least_s
    while not times or time.perf_counter() < end_s:
        product()
        times += 1
    return _turn(times * product.operations, before)


def _turn(amount: float, before: Reading) -> Turn:
    took = before.until(Reading.now())
    return Turn(amount / took.wall_s, amount / max(took.cpu_s, 1e-9), took.others)


def _report(
    plan: EncodePlan,
    made: BenchEncoder,
    contenders: Sequence[_Contender],
    found: dict[str, list[Turn]],
    *,
    asked: EncoderSettings,
) -> Report:
    gpu = encodes_on_gpu(asked)
    figures: list[Measured] = []
    for name, turns in found.items():
        if name.endswith("matrix product"):
            figures.append(Measured.of(name, "TFLOP/s", [_pace(one, gpu=gpu) / _TERA for one in turns]))
            continue
        figures.append(Measured.of(name, "images/s", [one.per_s for one in turns]))
        if not gpu:
            figures.append(Measured.of(f"{name}, CPU", "ms/image", [1000 / one.per_cpu_s for one in turns]))
    by_precision = [_of_precision(one, plan, found, gpu=gpu) for one in contenders]
    summary: dict[str, object] = {
        "model": made.name,
        "backend": asked.backend,
        "device": survey_device(asked.device).gpu if gpu else "cpu",
        "cores": cores_here(),
        "encode_threads": contenders[0].threads,
        "others": round(max(one.others for turns in found.values() for one in turns), 3),
        "precisions": by_precision,
    }
    for told in by_precision:
        summary |= {f"{told['precision']}_{name}": value for name, value in told.items() if name != "precision"}
    targets = _targets(made, by_precision, gpu=gpu)
    return Report("Encoding, by batch size", summary, figures, machine(), _notes(made, gpu=gpu), targets)


def _targets(made: BenchEncoder, by_precision: Sequence[Mapping[str, Any]], *, gpu: bool) -> list[Target]:
    """
    The share of the device's matrix products that bf16 was to reach, with the model and kind of device of that target.
    """
    given = None if gpu and made.name.startswith(TARGET_MODEL) else f"{TARGET_MODEL} on a GPU"
    return [
        Target(f"matmul_share, {told['precision']}", TARGET_SHARE, told.get("matmul_share"), given=given)
        for told in by_precision
        if told["precision"] == TARGET_PRECISION
    ]


def _of_precision(one: _Contender, plan: EncodePlan, found: dict[str, list[Turn]], *, gpu: bool) -> dict[str, object]:
    """
    The best batch size of a precision, and how near it comes to the product's rate in the same rounds.
    """
    paces = {size: [_pace(turn, gpu=gpu) for turn in found[f"{one.precision}, batch of {size}"]] for size in plan.sizes}
    best = max(paces, key=lambda size: median(paces[size]))
    turns = found[f"{one.precision}, batch of {best}"]
    told: dict[str, object] = {
        "precision": one.precision,
        "best_batch": best,
        "images_per_s": round(median(turn.per_s for turn in turns), 2),
        "cpu_ms_per_image": None if gpu else round(1000 / median(turn.per_cpu_s for turn in turns), 3),
    }
    if one.operations is not None:
        products = [_pace(turn, gpu=gpu) for turn in found[f"{one.precision}, matrix product"]]
        shares = [one.operations * mine / most for mine, most in zip(paces[best], products, strict=True)]
        told |= {
            "gflop_per_image": round(one.operations / 1e9, 3),
            "tflops": round(one.operations * median(paces[best]) / _TERA, 4),
            "matmul_tflops": round(median(products) / _TERA, 4),
            "matmul_share": round(median(shares), 4),
        }
    return told


def _pace(turn: Turn, *, gpu: bool) -> float:
    return turn.per_s if gpu else turn.per_cpu_s


def _notes(made: BenchEncoder, *, gpu: bool) -> list[str]:
    notes = [] if made.trained else ["weights are random: rates are those of trained ones, features mean nothing"]
    per = "second" if gpu else "second of CPU time, and so of one core"
    return [*notes, f"TFLOP/s are per {per}; a product's are torch.mm's, the best of several large shapes"]
