"""
One matrix product of a fused tower: weights in low precision, with what follows it (activation or sum) where it can be.

On a CPU the weights are laid out once as oneDNN wants them, instead of with every product. Which products a tower
consists of is ``worker/adapters/clip_fused.py``.
"""

from collections.abc import Callable
from typing import Final, Literal

import torch
from torch.nn import functional

Activation = Literal["none", "gelu", "gelu_tanh", "silu"]

_ACTIVATIONS: Final[dict[Activation, Callable[[torch.Tensor], torch.Tensor]]] = {
    "none": lambda values: values,
    "gelu": functional.gelu,
    "gelu_tanh": lambda values: functional.gelu(values, approximate="tanh"),
    "silu": functional.silu,
}
# As oneDNN calls them: the operation and its algorithm.
_FUSED: Final[dict[Activation, tuple[str, str]]] = {
    "none": ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "silu": ("swish", ""),
}
_ROWS: Final = 512
"""The number of rows for which oneDNN chooses the layout; other numbers are computed with it as well."""


class Linear:
    """
    ``activation(x @ weight.T + bias)``, or ``residual + x @ weight.T + bias``; any number of threads may call it.

    ``weight`` and ``bias`` are given in fp32 and kept in ``dtype`` on ``device``; ``bias`` may be None.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        like: torch.Tensor,
        activation: Activation = "none",
    ) -> None:
        self.shape = tuple(weight.shape)
        self._activation = activation
        self._weight = weight.to(like).contiguous()
        self._bias = None if bias is None else bias.to(like).contiguous()
        self._packed = packs(like) and like.device.type == "cpu"
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight, _ROWS)  # noqa: SLF001 - it has no public name; ``packs`` tries it

    def __call__(self, values: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """
        The product over the last dimension; ``residual`` only without an activation.
        """
        if self._packed:
            ops = torch.ops.mkldnn
            if residual is not None:
                summed: torch.Tensor = ops._linear_pointwise.binary(values, residual, self._weight, self._bias, "add")  # noqa: SLF001 - as above
                return summed
            operation, algorithm = _FUSED[self._activation]
            packed: torch.Tensor = ops._linear_pointwise(values, self._weight, self._bias, operation, [], algorithm)  # noqa: SLF001 - as above
            return packed
        product = _ACTIVATIONS[self._activation](functional.linear(values, self._weight, self._bias))
        return product if residual is None else residual + product


def packs(like: torch.Tensor) -> bool:
    """
    Whether this torch on this CPU multiplies by weights laid out beforehand, in ``like``'s precision, and rightly.

    The operations are those that ``torch.compile`` writes for frozen weights; torch gives them no public name, so that
    they are tried before they are believed.
    """
    if like.dtype is not torch.bfloat16 or like.device.type != "cpu":
        return False
    if like.dtype not in _TRIED:
        _TRIED[like.dtype] = _agrees(like.dtype)
    return _TRIED[like.dtype]


_TRIED: Final[dict[torch.dtype, bool]] = {}


def _agrees(dtype: torch.dtype) -> bool:
    values = (torch.arange(64 * 32, dtype=torch.float32).view(64, 32) % 7 - 3).to(dtype)
    weight = (torch.arange(48 * 32, dtype=torch.float32).view(48, 32) % 5 - 2).to(dtype) / 16
    bias = torch.arange(48, dtype=torch.float32).to(dtype) / 64
    residual = torch.ones(64, 48, dtype=dtype)
    try:
        ops = torch.ops.mkldnn
        packed = ops._reorder_linear_weight(weight, _ROWS)  # noqa: SLF001 - as in ``Linear``
        found = [ops._linear_pointwise(values, packed, bias, *_spread(name)) for name in _FUSED]  # noqa: SLF001 - likewise
        found.append(ops._linear_pointwise.binary(values, residual, packed, bias, "add"))  # noqa: SLF001 - likewise
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False
    plain = functional.linear(values.float(), weight.float(), bias.float())
    wanted = [_ACTIVATIONS[name](plain) for name in _FUSED] + [plain + residual.float()]
    return all(
        torch.allclose(one.float(), other, rtol=2**-6, atol=2**-6) for one, other in zip(found, wanted, strict=True)
    )


def _spread(name: Activation) -> tuple[str, list[float], str]:
    operation, algorithm = _FUSED[name]
    return operation, [], algorithm
