"""
Exported towers on ONNX Runtime: in fp32, or with matrix products in int8, quantised as pictures come.

int8 takes one picture at a time. The scale of activations is found over whatever is computed together, so that in a
batch a picture's features would depend on its companions, and an uploader could spoil those of others.
"""

from pathlib import Path
from typing import Any, Final

import onnx

from worker.adapters.clip_export import FEATURES, PICTURES, PIXELS
from worker.adapters.cpu_features import INT8_ARM, INT8_X86, cpu_features
from worker.adapters.exported_runtime import (
    TOWER,
    Features,
    Pictures,
    Room,
    Session,
    is_out_of_memory,
    require_quantised,
)
from worker.adapters.onnx_library import QuantType, add_pre_process_metadata, onnxruntime, quantize_dynamic
from worker.errors import EncoderInvalid

PACKAGES: Final = ("onnx", "onnxruntime")

AT_ONCE: Final = 8
"""Pictures in one run in fp32; more only leave the caches."""

_INT8: Final = "tower-int8.onnx"
_ERRORS_ONLY: Final = 3
_QUANTISED: Final = ("MatMul", "Gemm")
_PRODUCTS: Final = ("MatMulInteger", "QGemm")


def form_of(precision: str) -> str:
    """
    Each precision has files of its own.
    """
    return precision


def store(folder: Path, form: str) -> None:
    """
    For fp32 the tower as it is; for int8 one with weights quantised for each channel, and the other removed.
    """
    if form == "fp32":
        return
    model = onnx.load(folder / TOWER)
    parameters = _parameters(model)
    # The export has done it, and onnxruntime would set up the root of Python's loggers to advise it.
    add_pre_process_metadata(model)
    for file in list(folder.iterdir()):
        file.unlink()
    quantize_dynamic(
        model, folder / _INT8, op_types_to_quantize=list(_QUANTISED), per_channel=True, weight_type=QuantType.QInt8
    )
    require_quantised(_quantised(onnx.load(folder / _INT8)), parameters)


def open_session(folder: Path, precision: str, room: Room) -> Session:
    """
    As ``Runtime.open_session``; int8 asks for a CPU that multiplies bytes.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = pool_of(room)
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Threads that spin for the next batch take the cores from the decoders.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if precision == "int8":
        _require_int8()
        options.add_free_dimension_override_by_name(PICTURES, 1)
    file = folder / (TOWER if precision == "fp32" else _INT8)
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # Its exceptions have no common base.
        raise EncoderInvalid(
            f"ONNX Runtime {onnxruntime.__version__} cannot open the exported encoder ({_first(error)}): configure "
            'encoder.backend = "torch", or another version of onnxruntime'
        ) from error

    def run(pictures: Pictures) -> Features:
        try:
            found: Features = session.run([FEATURES], {PIXELS: pictures})[0]
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryError(_first(error)) from error
            raise
        return found

    return Session(run, f"{precision}-onnxruntime", 1 if precision == "int8" else AT_ONCE)


def pool_of(room: Room) -> int:
    """
    The size of a session's pool with which all callers together compute on all threads of the room.

    Callers share one pool and compute beside it; each is counted as one of the pool's own, so that of the size one
    thread less is started. With 1 none is, and whoever asks computes by himself.
    """
    return room.threads * room.instances - room.instances + 1


def _require_int8() -> None:
    if not cpu_features() & (INT8_X86 | INT8_ARM):
        raise EncoderInvalid(
            'encoder.precision is "int8", and this CPU multiplies no bytes (avx512_vnni, avx_vnni or asimddp in '
            "/proc/cpuinfo): sums would be clipped, and features be others than on CPUs that do. Configure fp32"
        )


def _parameters(model: Any) -> int:  # noqa: ANN401 - onnx has no types for its messages
    return sum(_count(one.dims) for one in model.graph.initializer)


def _quantised(model: Any) -> int:  # noqa: ANN401 - likewise
    sizes = {one.name: _count(one.dims) for one in model.graph.initializer}
    named = {node.input[1] for node in model.graph.node if node.op_type in _PRODUCTS}
    return sum(sizes.get(name, 0) for name in named)


def _count(dims: Any) -> int:  # noqa: ANN401 - likewise
    count = 1
    for dim in dims:
        count *= int(dim)
    return count


def _first(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
