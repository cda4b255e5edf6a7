"""
An image tower written as an ONNX file, from uint8 pictures to raw features, for runtimes other than torch.

Done once for each encoder, by ``worker/adapters/exported_encoder.py``, which also says where the file is kept.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from worker.adapters.clip_source import ClipSource
from worker.adapters.clip_tower import load_tower
from worker.adapters.export_shelf import TowerFacts
from worker.adapters.onnx_unheard import UNHEARD
from worker.adapters.trial_picture import trial_picture
from worker.domain import PreprocessSpec
from worker.errors import EncoderInvalid

PIXELS: Final = "pixels"
"""The input: uint8[n, side, side, 3]."""

FEATURES: Final = "features"
"""The output: float32[n, dim]."""

PICTURES: Final = "n"
"""The one dimension that is left open."""


class _FromPixels(torch.nn.Module):
    """
    ToTensor and Normalize of torchvision before a tower in fp32.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, tower: torch.nn.Module, spec: PreprocessSpec) -> None:
        super().__init__()
        self.tower = tower
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        images = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
        features: torch.Tensor = self.tower((images - self.mean) / self.std)
        return features


def export_tower(source: ClipSource, file: Path) -> TowerFacts:
    """
    Write the source's image tower in fp32 to ``file``, large weights beside it, and say what it is.

    Takes some ten seconds for a ViT-B/32 and twice the memory of its weights. Raises ``EncoderInvalid`` for a tower
    that cannot be loaded or exported.
    """
    try:
        tower = load_tower(source, "fp32", torch.device("cpu"))
    except OSError as error:  # told here: of the file's place, whoever asked for it would blame the place of exports
        raise EncoderInvalid(
            f"the weights of {source.name} cannot be read ({error.strerror or error}): check {source.checkpoint}"
        ) from error
    module = _FromPixels(tower.module, tower.preprocess).eval()
    side = tower.preprocess.size
    picture = trial_picture(side)
    with torch.inference_mode():
        features = module(torch.from_numpy(picture[np.newaxis]))
    if not isinstance(features, torch.Tensor) or features.shape[:-1] != (1,) or not bool(features.isfinite().all()):
        raise EncoderInvalid(f"{source.name} gives no finite feature vector per picture: configure another model")
    _write(module, np.stack([picture, picture]), source.name, file)
    return TowerFacts(
        architecture_sha256=tower.architecture_sha256,
        weights_sha256=tower.weights_sha256,
        size=side,
        trial=tuple(features[0].tolist()),
    )


def _write(module: torch.nn.Module, pictures: NDArray[np.uint8], name: str, file: Path) -> None:
    os.environ[UNHEARD] = "1"  # the exporter loads ONNX Runtime where it is installed
    try:
        with _plain_attention(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch to those who wrote the model
            torch.onnx.export(
                module,
                (torch.from_numpy(pictures),),
                file,
                input_names=[PIXELS],
                output_names=[FEATURES],
                dynamic_shapes={"pixels": {0: torch.export.Dim(PICTURES)}},
                dynamo=True,
                external_data=True,
                verbose=False,
            )
    except Exception as error:
        # torch raises ImportError, OnnxExporterError, RuntimeError and more, each with pages of advice.
        first = next(iter(str(error).strip().splitlines()), "")[:200]
        raise EncoderInvalid(
            f"{name} cannot be exported to ONNX ({type(error).__name__}: {first}): configure encoder.backend = "
            '"torch", or install the extra of the backend anew if a package is missing'
        ) from error


@contextmanager
def _plain_attention() -> Iterator[None]:
    """
    Inside, attention is made of plain operations: torch's fused one has no counterpart in ONNX.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
