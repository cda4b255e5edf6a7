"""
What torch computes on here; for ``touchstone doctor``. Only asks. Encoders are loaded in ``clip_encoder.py``.
"""

from dataclasses import dataclass

import torch


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
    on_gpu = configured.startswith("cuda") or (configured == "auto" and torch.cuda.is_available())
    gpu = torch.cuda.get_device_name(int(configured.partition(":")[2] or 0)) if on_gpu else None
    return DeviceFacts(str(torch.__version__), torch.get_num_threads(), gpu)
