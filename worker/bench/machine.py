"""
What the machine is that a benchmark ran on: without it no figure can be compared with another.

Nothing here names the host or a path of it.
"""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from worker.bench.cpu_time import cores_here

_FLAGS: Final = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
)
"""What decides which precision is fast on a CPU."""

_PACKAGES: Final = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "faiss-cpu",
    "pillow",
    "numpy",
    "kafka-python",
    "redis",
    "onnxruntime",
    "openvino",
)


def machine() -> dict[str, object]:
    """
    CPU, cores, memory, what the CPU can do, Python, and the versions of the packages that do the work.
    """
    return {
        "cpu": _cpu_model(),
        "cores": cores_here(),
        "cpu_flags": _cpu_flags(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "accelerator": _accelerator(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
        "load_1m": round(os.getloadavg()[0], 2),
    }


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _cpu_model() -> str:
    named = (line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")


def _cpu_flags() -> list[str]:
    lines = (line for line in _cpu_lines() if line.startswith(("flags", "Features")))
    found = set(next(lines, "").partition(":")[2].split())
    return [name for name in _FLAGS if name in found]


def _accelerator() -> str | None:
    # The driver's own list: to ask torch would import it, and take memory on the device.
    names = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    for file in names:
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
