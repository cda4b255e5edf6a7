"""
Tiny-LaDeDa (arXiv 2406.09398), a published 1,300-parameter detector: a peer that ours is measured against.

The architecture is written anew from the shapes of its published weights; the weights are research-only and are never
shipped. Nothing but the evaluation asks for it.
"""

import hashlib
import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from worker.errors import CannotStart

SIDE: Final = 256
"""The authors test on pictures that were resized to this square, and not cropped."""

_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)
_GRADIENT: Final = ((-2.0, -1.0, 0.0), (-1.0, 0.0, 1.0), (0.0, 1.0, 2.0))
"""A Sobel kernel along the diagonal: the residual that the published weights were trained on (``right_diag``)."""

SHAPES: Final = {
    "conv1.weight": (8, 3, 1, 1),
    "conv2.weight": (8, 8, 3, 3),
    "layer1.0.conv1.weight": (8, 8, 1, 1),
    "layer1.0.conv2.weight": (8, 8, 3, 3),
    "fc.weight": (1, 8),
    "fc.bias": (1,),
    **{f"{norm}.{part}": (8,) for norm in ("bn1", "layer1.0.bn1", "layer1.0.bn2") for part in ("weight", "bias")},
    **{
        f"{norm}.{part}": (8,)
        for norm in ("bn1", "layer1.0.bn1", "layer1.0.bn2")
        for part in ("running_mean", "running_var")
    },
}
"""Every tensor that is used; ``num_batches_tracked`` of the batch norms is not."""


class TinyLadeda:
    """
    The detector with the weights of one file. Higher scores mean "generated"; above 0 is the authors' own decision.

    ``sha256`` is that of the file. Raises ``CannotStart`` for another file, and where there are ``expected`` sha256 for
    one that has none of them.
    """

    def __init__(self, path: Path, *, expected: Collection[str] = ()) -> None:
        self.name = f"peer:{path.stem}"
        try:
            data = path.read_bytes()
        except OSError as fault:
            raise CannotStart(f"peer {path} cannot be read ({fault.strerror}); check its path") from fault
        self.sha256 = hashlib.sha256(data).hexdigest()
        if expected and self.sha256 not in expected:
            raise CannotStart(
                f"peer {path} has sha256 {self.sha256}, expected {' or '.join(sorted(expected))}: it is another file, "
                "or damaged; nothing of it was loaded"
            )
        try:
            # The bytes that were hashed: the file may be another one by now.
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as fault:
            # What torch raises for a file that is not its own differs by version and by what the file is.
            raise CannotStart(f"peer {path} cannot be read ({fault}); expected a *_Tiny_LaDeDa.pth") from fault
        shapes = {name: tuple(value.shape) for name, value in dict(found).items() if name in SHAPES}
        if shapes != SHAPES:
            wrong = sorted(name for name, shape in SHAPES.items() if shapes.get(name) != shape)
            raise CannotStart(f"peer {path} is no Tiny-LaDeDa: tensors {', '.join(wrong)} are missing or misshapen")
        self._weights: dict[str, torch.Tensor] = {name: found[name].to(torch.float32) for name in SHAPES}

    @torch.inference_mode()
    def logits(self, pictures: Sequence[Image.Image]) -> NDArray[np.float64]:
        """
        The mean of each picture's patch logits, float64[n]; pictures of any size and mode.
        """
        scores = [float(self._forward(_input(picture)).squeeze()) for picture in pictures]
        return np.array(scores, dtype=np.float64)

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        weights = self._weights
        kernel = torch.tensor(_GRADIENT).expand(3, 1, 3, 3)
        residual = functional.conv2d(images, kernel, groups=3, padding="same")
        first = functional.conv2d(functional.conv2d(residual, weights["conv1.weight"]), weights["conv2.weight"])
        hidden = functional.relu(self._normed(first, "bn1"))
        hidden = functional.conv2d(hidden, weights["layer1.0.conv1.weight"])
        hidden = functional.relu(self._normed(hidden, "layer1.0.bn1"))
        hidden = functional.conv2d(hidden, weights["layer1.0.conv2.weight"], stride=2)
        hidden = functional.relu(self._normed(hidden, "layer1.0.bn2"))
        # The last layer is linear: the mean of the patches' logits is the logit of their mean.
        return functional.linear(hidden.mean(dim=(2, 3)), weights["fc.weight"], weights["fc.bias"])

    def _normed(self, images: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance = self._weights[f"{name}.running_mean"], self._weights[f"{name}.running_var"]
        return functional.batch_norm(
            images, mean, variance, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        )


def _input(picture: Image.Image) -> torch.Tensor:
    small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255).permute(2, 0, 1)[None]
    return (pixels - torch.tensor(_MEAN).view(1, 3, 1, 1)) / torch.tensor(_STD).view(1, 3, 1, 1)
