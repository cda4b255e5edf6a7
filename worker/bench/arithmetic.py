"""
What an encoder computes for one picture, and how fast this device multiplies matrices at best.
"""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch.utils.flop_counter import FlopCounterMode

from worker.adapters.clip_tower import DTYPES, Precision, build, ready
from worker.domain import PreprocessSpec

Shape = tuple[int, int, int]
"""Rows of the left matrix, its columns, and columns of the right one."""

_CPU_SHAPES: Final[tuple[Shape, ...]] = ((1024, 1024, 4096), (2048, 2048, 2048), (1600, 768, 3072))
"""Large ones, and one of a ViT-B/32 on 32 pictures: which is fastest depends on the caches and the precision."""

_GPU_SHAPES: Final[tuple[Shape, ...]] = ((8192, 8192, 8192),)
_GPU_TIMES: Final = 20


def operations_per_image(architecture: Mapping[str, Any], spec: PreprocessSpec, precision: Precision) -> int:
    """
    Floating-point operations of all matrix products for one picture, a multiplication and an addition being two.

    Of the tower as it runs in this precision: where it is fused, what the last block leaves out is not counted. Counted
    on torch's meta device, where nothing is computed.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not know the operation that it consists of
    try:
        with torch.device("meta"):
            tower = build(architecture, precision).eval().requires_grad_(requires_grad=False)
            _, forward = ready(tower, spec, precision, torch.device("meta"))
            pixels = torch.zeros(1, spec.size, spec.size, 3, dtype=torch.uint8)
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                forward(pixels)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())


def shapes_for(device: torch.device) -> tuple[Shape, ...]:
    """
    The products of which the fastest counts as what this device can do.
    """
    return _GPU_SHAPES if device.type == "cuda" else _CPU_SHAPES


class Multiplication:
    """
    A large matrix product in a precision on a device, to be repeated; ``operations`` of one call, as above.
    """

    def __init__(self, precision: Precision, device: torch.device, shape: Shape) -> None:
        self._on_gpu = device.type == "cuda"
        rows, inner, columns = shape
        self._left = torch.rand(rows, inner, device=device).to(DTYPES[precision])
        self._right = torch.rand(inner, columns, device=device).to(DTYPES[precision])
        self._times = _GPU_TIMES if self._on_gpu else 1
        self.operations = 2 * rows * inner * columns * self._times

    @torch.inference_mode()
    def __call__(self) -> None:
        """
        Multiply, and return when the device is done.
        """
        for _ in range(self._times):
            torch.mm(self._left, self._right)
        if self._on_gpu:
            torch.cuda.synchronize(self._left.device)
