"""
What torch computes on here, and how its work is shared out; encoders are loaded in ``clip_encoder.py``.
"""

import os
import time
from dataclasses import dataclass
from typing import Final

import torch

_SIDE: Final = 768
_TRIES: Final = 10

_AT_START: Final = torch.get_num_threads()
"""Torch's own count, before an encoder that is loaded changes it for the whole process."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """
    ``gpu`` is the name of the CUDA device that the setting comes to, None for the CPU with so many ``threads``.
    """

    torch_version: str
    threads: int
    gpu: str | None


def survey_device(configured: str) -> DeviceFacts:
    """
    What ``encoder.device`` comes to, after an encoder was loaded on it.
    """
    gpu = torch.cuda.get_device_name(int(configured.partition(":")[2] or 0)) if on_gpu(configured) else None
    return DeviceFacts(str(torch.__version__), torch.get_num_threads(), gpu)


def torch_threads() -> int:
    """
    How many threads torch computes with where this is asked.
    """
    return torch.get_num_threads()


def torch_cores() -> int:
    """
    How many cores torch may compute on here, the same before and after an encoder was loaded.

    Those of this process, or fewer where torch began with fewer threads: ``OMP_NUM_THREADS`` says so, or two hardware
    threads are one core.
    """
    return min(len(os.sched_getaffinity(0)), _AT_START)


def on_gpu(configured: str) -> bool:
    """
    Whether ``encoder.device`` comes to a CUDA device.
    """
    return configured.startswith("cuda") or (configured == "auto" and torch.cuda.is_available())


def bf16_gain() -> float:
    """
    How many times as fast this CPU multiplies matrices of a tower's size in bf16 as in fp32; takes a tenth of a second.

    By CPU time, the best of several tries each, in turn: so that what else runs here counts little.
    """
    with torch.inference_mode():
        exact = torch.rand(_SIDE, _SIDE)
        rough = exact.to(torch.bfloat16)
        took: dict[torch.dtype, list[float]] = {exact.dtype: [], rough.dtype: []}
        for _ in range(_TRIES):
            for matrix in (exact, rough):
                began_s = time.process_time()
                torch.mm(matrix, matrix)
                took[matrix.dtype].append(time.process_time() - began_s)
    return min(took[exact.dtype]) / min(took[rough.dtype])


def share_cores(device: str, *, threads: int, instances: int) -> None:
    """
    Let torch compute with so many ``threads`` in each encoding; with 0, ``torch_cores`` shared among the instances.

    With 0 and one instance torch is left as it is. For the whole process.
    """
    if threads:
        torch.set_num_threads(threads)
    elif instances > 1 and not on_gpu(device):
        torch.set_num_threads(max(1, torch_cores() // instances))
