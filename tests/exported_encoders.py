"""
Encoders on runtimes other than torch, for tests: packages that are missing skip on a laptop and fail in CI.

Exporting takes seconds: one shelf for all tests of a process.
"""

import importlib.util
import tempfile
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.small_encoder import CountingRecorder, encoder_settings
from worker.adapters.cpu_features import INT8_X86, cpu_features
from worker.adapters.exported_encoder import ExportedEncoder, load_exported
from worker.dev.small_encoder import SmallEncoder, write_small_encoder

EXPORTED = ("onnxruntime-fp32", "onnxruntime-int8", "openvino-fp32", "openvino-bf16", "openvino-int8")
"""Every backend with each of its precisions."""

_HOLDER = tempfile.TemporaryDirectory(prefix="exported-encoders-")

SHELF = Path(_HOLDER.name) / "shelf"
"""Where what tests export is kept until their process ends."""


def require_backend(backend: str, precision: str = "fp32") -> None:
    """
    Skip or fail where the backend's package is not installed; skip where this CPU has not the precision.

    No CI can install another CPU.
    """
    for package in (backend, "onnxscript"):
        if importlib.util.find_spec(package) is None:
            missing(f"{package} (extras onnx and openvino)")
    wanted = {"bf16": {"avx512_bf16", "amx_bf16"}, "int8": INT8_X86}.get(precision)
    if wanted is not None and not cpu_features() & wanted:
        pytest.skip(f"no CPU with {' or '.join(sorted(wanted))}")


@cache
def small_model() -> SmallEncoder:
    """
    The small vision transformer, one for all.
    """
    return write_small_encoder(Path(_HOLDER.name) / "small")


def exported(backend: str, precision: str = "fp32", **more: object) -> ExportedEncoder:
    """
    The small encoder on a backend, through the real loading code. One thread, on a shelf that tests share.
    """
    require_backend(backend, precision)
    named = {"backend": backend, "precision": precision, "export_dir": SHELF}
    settings = encoder_settings(small_model(), **named, **more)
    return load_exported(settings, CountingRecorder())
