"""
Encoders for tests: the small one that ships with the demo, and a small one that was really trained.
"""

from pathlib import Path
from typing import Any

import numpy as np
import timm
from numpy.typing import NDArray
from open_clip.transformer import VisionTransformer
from safetensors.numpy import load_file
from torch import nn

from worker.adapters.clip_encoder import ClipEncoder, load_encoder
from worker.adapters.clip_source import resolve
from worker.adapters.clip_tower import build
from worker.adapters.clip_weights import fit, read_tensors
from worker.dev.small_encoder import SmallEncoder, write_model_folder
from worker.metric_names import MetricName
from worker.settings.tree import EncoderSettings


class CountingRecorder:
    """
    A recorder that remembers what was counted.
    """

    def __init__(self) -> None:
        self.counts: dict[str, float] = {}

    def count(self, name: MetricName, amount: float = 1, **_labels: str) -> None:
        """
        Add to a counter.
        """
        self.counts[name] = self.counts.get(name, 0) + amount

    def observe(self, name: MetricName, value: float, **_labels: str) -> None:
        """
        Record one measured value; here, only that there was one.
        """
        self.counts[name] = self.counts.get(name, 0) + (1 if value == value else 0)  # noqa: PLR0124 - not for NaN


def encoder_settings(small: SmallEncoder, **more: object) -> EncoderSettings:
    """
    The settings that load a model folder on the CPU; one thread, so that tests side by side do not wait for each other.
    """
    values = {"model": small.model, "checkpoint_sha256": small.checkpoint_sha256, "device": "cpu", "threads": 1}
    return EncoderSettings.model_validate({**values, **more})


def loaded(small: SmallEncoder, **more: object) -> ClipEncoder:
    """
    The encoder of a model folder, through the real loading code.
    """
    return load_encoder(encoder_settings(small, **more), CountingRecorder())


def read_tower(small: SmallEncoder) -> VisionTransformer:
    """
    Its image tower as open_clip builds it, in fp32, with its weights and frozen.
    """
    source = resolve(encoder_settings(small))
    tower = build(source.architecture, "fp32")
    assert isinstance(tower, VisionTransformer)
    fit(tower, read_tensors(source.checkpoint, source.sha256), source.checkpoint)
    return tower.eval().requires_grad_(requires_grad=False)


def mobilenet_encoder(folder: Path, shared_data: Path, *, side_px: int = 224) -> SmallEncoder:
    """
    ImageNet's MobileNetV2 1.0 as an open_clip model folder: 2.2 M trained parameters, features float[1280].

    Trained at 224 pixels a side; it still knows what it sees at fewer, which cost their share of the time.

    The field data hold its 52 convolutions with the batch norms folded in, in forward order; each batch norm of timm's
    trunk becomes that convolution's bias. The folder has no text tower.
    """
    folded = load_file(shared_data / "weights" / "mobilenetv2_1.0_trunk.safetensors")
    numbers = sorted({int(name.split("_")[1]) for name in folded})
    trunk = timm.create_model("mobilenetv2_100", pretrained=False, num_classes=0)
    convolutions = [name for name, part in trunk.named_modules() if isinstance(part, nn.Conv2d)]
    norms = [(name, part.eps) for name, part in trunk.named_modules() if isinstance(part, nn.BatchNorm2d)]
    weights: dict[str, NDArray[Any]] = {}
    for number, convolution, (norm, epsilon) in zip(numbers, convolutions, norms, strict=True):
        bias = folded[f"conv_{number}_bias"]
        weights[f"visual.trunk.{convolution}.weight"] = folded[f"conv_{number}_weight"]
        weights[f"visual.trunk.{norm}.bias"] = bias
        weights[f"visual.trunk.{norm}.weight"] = np.ones_like(bias)
        weights[f"visual.trunk.{norm}.running_mean"] = np.zeros_like(bias)
        weights[f"visual.trunk.{norm}.running_var"] = np.full_like(bias, 1.0 - epsilon)
        weights[f"visual.trunk.{norm}.num_batches_tracked"] = np.zeros((), np.int64)
    return write_model_folder(folder, _mobilenet_config(side_px), weights)


def _mobilenet_config(side_px: int) -> dict[str, Any]:
    return {
        "model_cfg": {
            "embed_dim": 1280,
            "vision_cfg": {
                "timm_model_name": "mobilenetv2_100",
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": "none",
                "image_size": side_px,
            },
            "text_cfg": {},
        },
        "preprocess_cfg": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
