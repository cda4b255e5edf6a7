"""
A small encoder for demonstrations and tests: an open_clip model folder with weights that nobody trained.

It goes through the same loading, fingerprint and forward pass as any CLIP. Random filters see colour, texture and
coarse layout, so that a picture is near to its own copies and crops; what a picture shows they do not know, and
verdicts made with them demonstrate the pipeline and not accuracy.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from worker.fingerprint import canonical_sha256

_SIDE: Final = 64
_PATCH: Final = 8
_WIDTH: Final = 128
_LAYERS: Final = 2
_HIDDEN: Final = 256
_DIM: Final = 64
_TEXT_WIDTH: Final = 32
_TEXT_LENGTH: Final = 8
_TEXT_VOCABULARY: Final = 64

_CONFIG: Final = {
    "model_cfg": {
        "embed_dim": _DIM,
        "vision_cfg": {
            "image_size": _SIDE,
            "patch_size": _PATCH,
            "width": _WIDTH,
            "layers": _LAYERS,
            "head_width": 32,
            "mlp_ratio": _HIDDEN / _WIDTH,
            "pool_type": "avg",
        },
        "text_cfg": {
            "context_length": _TEXT_LENGTH,
            "vocab_size": _TEXT_VOCABULARY,
            "width": _TEXT_WIDTH,
            "heads": 2,
            "layers": 1,
        },
    },
    "preprocess_cfg": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}

Tensor = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SmallEncoder:
    """
    What to configure: ``encoder.model`` and ``encoder.checkpoint_sha256``.
    """

    model: str
    checkpoint_sha256: str
    folder: Path
    checkpoint: Path


def write_small_encoder(folder: Path, *, seed: int = 0) -> SmallEncoder:
    """
    Write the model folder (1.4 MB; image side 64, 64 dimensions); the same seed gives the same weights everywhere.
    """
    weights = dict(_image_tower(seed)) | dict(_text_tower(seed))
    weights["logit_scale"] = np.array(np.log(1 / 0.07), np.float32)
    return write_model_folder(folder, _CONFIG, weights)


def write_model_folder(folder: Path, config: object, weights: Mapping[str, NDArray[Any]]) -> SmallEncoder:
    """
    An open_clip model folder from a configuration and named weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    checkpoint = folder / "open_clip_model.safetensors"
    save_file(dict(weights), checkpoint)
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    return SmallEncoder(f"local-dir:{folder.resolve()}", sha256, folder, checkpoint)


def _image_tower(seed: int) -> Iterator[tuple[str, Tensor]]:
    patches = (_SIDE // _PATCH) ** 2
    # Three times the usual gain, and positions that stay small: what the patch shows outweighs where it lies.
    yield _uniform(seed, "visual.conv1.weight", (_WIDTH, 3, _PATCH, _PATCH), 3.0 / np.sqrt(3 * _PATCH * _PATCH))
    yield _uniform(seed, "visual.positional_embedding", (patches + 1, _WIDTH), 0.3)
    yield _uniform(seed, "visual.class_embedding", (_WIDTH,), 1.0)
    yield _uniform(seed, "visual.proj", (_WIDTH, _DIM), 1.0 / np.sqrt(_WIDTH))
    yield from _norm("visual.ln_pre", _WIDTH)
    yield from _norm("visual.ln_post", _WIDTH)
    for layer in range(_LAYERS):
        yield from _block(seed, f"visual.transformer.resblocks.{layer}", _WIDTH, _HIDDEN)


def _text_tower(seed: int) -> Iterator[tuple[str, Tensor]]:
    """
    Never used here; it makes the folder a whole open_clip model, for open_clip's own loader.
    """
    yield _uniform(seed, "token_embedding.weight", (_TEXT_VOCABULARY, _TEXT_WIDTH), 0.02)
    yield _uniform(seed, "positional_embedding", (_TEXT_LENGTH, _TEXT_WIDTH), 0.01)
    yield _uniform(seed, "text_projection", (_TEXT_WIDTH, _DIM), 1.0 / np.sqrt(_TEXT_WIDTH))
    yield from _norm("ln_final", _TEXT_WIDTH)
    yield from _block(seed, "transformer.resblocks.0", _TEXT_WIDTH, 4 * _TEXT_WIDTH)


def _block(seed: int, name: str, width: int, hidden: int) -> Iterator[tuple[str, Tensor]]:
    yield from _norm(f"{name}.ln_1", width)
    yield from _norm(f"{name}.ln_2", width)
    yield _uniform(seed, f"{name}.attn.in_proj_weight", (3 * width, width), 1.0 / np.sqrt(width))
    yield f"{name}.attn.in_proj_bias", np.zeros(3 * width, np.float32)
    yield _uniform(seed, f"{name}.attn.out_proj.weight", (width, width), 0.5 / np.sqrt(width))
    yield f"{name}.attn.out_proj.bias", np.zeros(width, np.float32)
    yield _uniform(seed, f"{name}.mlp.c_fc.weight", (hidden, width), 1.0 / np.sqrt(width))
    yield f"{name}.mlp.c_fc.bias", np.zeros(hidden, np.float32)
    yield _uniform(seed, f"{name}.mlp.c_proj.weight", (width, hidden), 4.0 / np.sqrt(hidden))
    yield f"{name}.mlp.c_proj.bias", np.zeros(width, np.float32)


def _norm(name: str, width: int) -> Iterator[tuple[str, Tensor]]:
    yield f"{name}.weight", np.ones(width, np.float32)
    yield f"{name}.bias", np.zeros(width, np.float32)


def _uniform(seed: int, name: str, shape: tuple[int, ...], deviation: float) -> tuple[str, Tensor]:
    """
    Uniform numbers of mean 0 and this standard deviation, from SHAKE-256 of seed and name.

    No generator's version and no machine's mathematics can change them.
    """
    stream = hashlib.shake_256(canonical_sha256([seed, name]).encode()).digest(2 * int(np.prod(shape)))
    centred = (np.frombuffer(stream, "<u2").astype(np.float64) + 0.5) / 32_768 - 1.0
    return name, (centred * (deviation * np.sqrt(3.0))).astype(np.float32).reshape(shape)
