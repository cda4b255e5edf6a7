"""
The encoder as configured. Part of the composition root, which imports no library that encodes before one is loaded.

How it is loaded and identified is ``worker/adapters/clip_encoder.py``, or for runtimes other than torch
``worker/adapters/exported_encoder.py``.
"""

import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import structlog

from worker.adapters.cpu_features import cpu_features
from worker.ports import Encoder, Recorder
from worker.settings.tree import EncoderSettings

log = structlog.get_logger(__name__)

BF16: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""What the kernel calls a CPU's own products of bf16, the last on ARM. Without them torch takes the long way."""

GPU_INSTANCES: Final = 2
"""Batches under way on a GPU: while one computes, pictures of another are gathered and copied."""

CPU_INSTANCES: Final = 4
"""
Batches under way on a CPU at most, each on its share of the cores.

A thread by itself waits for no other. Threads that share a batch meet after every product, and whoever shares a core
with a decoder keeps the others waiting there, on their cores.
"""


def load_encoder(settings: EncoderSettings, recorder: Recorder, *, batch_size: int = 0) -> Encoder:
    """
    The configured encoder, verified and loaded; on a GPU also made ready for batches of up to ``batch_size`` pictures.

    Blocks for seconds, and for a download or an export where one is needed. Raises ``EncoderInvalid``.
    """
    if settings.backend != "torch":
        from worker.adapters.exported_encoder import load_exported  # noqa: PLC0415 - only where it is configured

        return load_exported(settings, recorder)
    from worker.adapters.clip_encoder import load_encoder as load_clip  # noqa: PLC0415 - torch takes seconds to import

    return load_clip(settings, recorder, batch_size=batch_size)


def encode_threads(settings: EncoderSettings) -> int:
    """
    How many threads encode at once: as configured in ``encoder.instances``, else what pays on the device.

    On a CPU never more than cores, of which torch takes no more than ``OMP_NUM_THREADS`` allows. With
    ``encoder.threads`` configured it is one there: the threads are those of the whole encoder then.
    """
    if settings.instances:
        return settings.instances
    if encodes_on_gpu(settings):
        return GPU_INSTANCES
    return 1 if settings.threads else _instances_on(_cores_for(settings))


def _cores_for(settings: EncoderSettings) -> int:
    """
    How many cores of the CPU the encoder may compute on.
    """
    if settings.backend != "torch":
        return len(os.sched_getaffinity(0))
    from worker.adapters.clip_device import torch_cores  # noqa: PLC0415 - torch takes seconds to import

    return torch_cores()


def _instances_on(cores: int) -> int:
    """
    The largest number up to ``CPU_INSTANCES`` of which equal shares leave no more than an eighth of the cores over.

    Decoders and all that is not encoding take what is left; one instance leaves nothing.
    """
    return max(number for number in range(1, CPU_INSTANCES + 1) if cores // number and 8 * (cores % number) <= cores)


def for_pipeline(settings: EncoderSettings) -> EncoderSettings:
    """
    The same settings as a pipeline loads them, which encodes with ``encode_threads``; others give it all the cores.
    """
    return settings.model_copy(update={"instances": encode_threads(settings)})


def device_of(settings: EncoderSettings) -> str:
    """
    What the encoder computes on, by torch's name for it.
    """
    if not encodes_on_gpu(settings):
        return "cpu"
    return "cuda" if settings.device == "auto" else settings.device


def encodes_on_gpu(settings: EncoderSettings) -> bool:
    """
    Whether the encoder computes on a GPU.
    """
    if settings.backend != "torch" or settings.device == "cpu":
        return False
    from worker.adapters.clip_device import on_gpu  # noqa: PLC0415 - torch takes seconds to import

    return on_gpu(settings.device)


@dataclass(frozen=True, slots=True)
class RuntimeFacts:
    """
    What computes the encoder instead of torch, on so many threads of the CPU, and where what it opens is ``kept``.
    """

    name: str
    threads: int
    kept: Path


def survey_runtime(settings: EncoderSettings) -> RuntimeFacts | None:
    """
    What ``encoder.backend`` comes to, after an encoder was loaded on it; None for torch.
    """
    if settings.backend == "torch":
        return None
    from worker.adapters.exported_encoder import export_dir_of  # noqa: PLC0415 - only where it is configured
    from worker.adapters.exported_runtime import room_of  # noqa: PLC0415 - likewise

    room = room_of(settings)
    name = f"{settings.backend} {version(settings.backend)}"
    return RuntimeFacts(name, room.threads * room.instances, export_dir_of(settings))


def advise_bf16(settings: EncoderSettings) -> None:
    """
    Say in the log where an encoder would be faster in another precision.
    """
    if faster_in_bf16(settings):
        log.info(
            "encoder.bf16_unused",
            precision="fp32",
            advice='this CPU computes bf16 by itself: encoder.precision = "bf16" encodes faster; banks '
            "keep serving, cached embeddings are made anew, and `touchstone doctor` measures what it brings",
        )


def faster_in_bf16(settings: EncoderSettings) -> bool:
    """
    Whether these settings come to torch in fp32 on a CPU that has bf16, in which it encodes faster.
    """
    if settings.backend != "torch" or settings.precision not in {"auto", "fp32"}:
        return False
    return bool(cpu_features() & BF16) and not encodes_on_gpu(settings)
