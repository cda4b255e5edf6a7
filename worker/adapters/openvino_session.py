"""
Exported towers on OpenVINO: in fp32, in bf16, or with matrix products in int8, quantised as pictures come.

int8 takes the scale of activations over 128 of them within one token, so a picture's companions have no part in it.
Weights have one scale for each output; no pictures are needed to find any.
"""

import threading
from pathlib import Path
from typing import Any, Final

import numpy as np

from worker.adapters.cpu_features import INT8_X86, cpu_features
from worker.adapters.exported_runtime import (
    TOWER,
    Features,
    Pictures,
    Room,
    Session,
    is_out_of_memory,
    require_quantised,
)
from worker.adapters.openvino_library import openvino, opset13
from worker.errors import EncoderInvalid

PACKAGES: Final = ("openvino",)

AT_ONCE: Final = 32
"""Pictures in one run; on a CPU more bring nothing."""

GROUP: Final = 128
"""Activations with one scale: the fastest of 32 to 768 here, and the one that divides the widths of towers."""

_STORED: Final = "tower.xml"
_MOST: Final = 127


def form_of(precision: str) -> str:
    """
    bf16 is computed from the files of fp32.
    """
    return "int8" if precision == "int8" else "fp32"


def store(folder: Path, form: str) -> None:
    """
    OpenVINO's own form, for int8 with the weights of matrix products quantised; the exported tower is removed.
    """
    core = openvino.Core()
    # Not mapped into memory: the files that it is read from go.
    core.set_property({"ENABLE_MMAP": False})
    model = core.read_model(folder / TOWER)
    if form == "int8":
        _quantise(model)
    made = folder / _STORED
    openvino.save_model(model, made, compress_to_fp16=False)
    for file in list(folder.iterdir()):
        if file.stem != made.stem or file.suffix not in (".xml", ".bin"):
            file.unlink()


def open_session(folder: Path, precision: str, room: Room) -> Session:
    """
    As ``Runtime.open_session``; bf16 and int8 ask for a CPU that has them.
    """
    core = openvino.Core()
    rest = _rest(core, precision)
    try:
        compiled = core.compile_model(core.read_model(folder / _STORED), "CPU", _properties(precision, rest, room))
    except (RuntimeError, MemoryError) as error:
        raise EncoderInvalid(
            f"OpenVINO {openvino.__version__} cannot open the exported encoder ({_first(error)}): configure "
            'encoder.backend = "torch", or another version of openvino'
        ) from error
    output = compiled.output(0)
    requests = threading.local()

    def run(pictures: Pictures) -> Features:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        try:
            found: Features = requests.own.infer({0: pictures})[output]
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise MemoryError(_first(error)) from error
            raise
        return found

    named = f"int8-{rest}" if precision == "int8" else precision
    return Session(run, f"{named}-openvino", AT_ONCE)


def _rest(core: Any, precision: str) -> str:  # noqa: ANN401 - openvino has no types
    """
    What is computed in where it is not int8. Raises ``EncoderInvalid`` for a precision that this CPU does not have.
    """
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and not has_bf16:
        raise EncoderInvalid(
            'encoder.precision is "bf16", which this CPU does not compute in (avx512_bf16 or amx_bf16 in '
            '/proc/cpuinfo): configure "fp32"'
        )
    if precision == "int8" and not cpu_features() & INT8_X86:
        raise EncoderInvalid(
            'encoder.precision is "int8", and this CPU multiplies no bytes (avx512_vnni or avx_vnni in /proc/cpuinfo): '
            'OpenVINO would compute in fp32 from rounded weights. Configure "fp32"'
        )
    return "bf16" if has_bf16 and precision in ("bf16", "int8") else "fp32"


def _properties(precision: str, rest: str, room: Room) -> dict[str, Any]:
    return {
        "INFERENCE_NUM_THREADS": room.threads * room.instances,
        "NUM_STREAMS": room.instances,
        # Decoders run beside: a thread that is bound to one core waits for them.
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "bf16" if rest == "bf16" else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if precision == "int8" else 0,
    }


def _quantise(model: Any) -> None:  # noqa: ANN401 - likewise
    """
    Replace the weights of every matrix product by bytes and a scale for each output, in place.
    """
    quantised = 0
    parameters = sum(
        int(np.prod(node.get_output_shape(0))) for node in model.get_ops() if node.get_type_name() == "Constant"
    )
    for node in model.get_ops():
        if node.get_type_name() != "MatMul":
            continue
        weights = node.input_value(1).get_node()
        if weights.get_type_name() != "Constant" or len(weights.get_output_shape(0)) != 2:  # noqa: PLR2004 - a matrix
            continue
        given, attributes = weights.get_data().astype(np.float32), node.get_attributes()
        by_output = given if attributes["transpose_b"] else given.T
        quantised += by_output.size
        scale = np.abs(by_output).max(axis=1, keepdims=True) / _MOST
        scale[scale == 0] = 1.0
        rounded = np.clip(np.rint(by_output / scale), -_MOST, _MOST).astype(np.int8)
        product = opset13.matmul(
            node.input_value(0),
            opset13.multiply(opset13.convert(opset13.constant(rounded), "f32"), opset13.constant(scale)),
            attributes["transpose_a"],
            transpose_b=True,
        )
        node.output(0).replace(product.output(0))
    require_quantised(quantised, parameters)


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
