"""
The image tower of an open_clip model: built, filled with verified weights, cast to its precision, identified.

Only this half is ever built: no text tower takes memory, and models whose text tower needs ``transformers`` or the
network work without either.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower, convert_weights_to_lp
from open_clip.transformer import AttentionalPooler

from worker.adapters.clip_source import ClipSource
from worker.adapters.clip_weights import fit, read_tensors, tensors_sha256
from worker.domain import PreprocessSpec
from worker.errors import EncoderInvalid
from worker.fingerprint import canonical_sha256
from worker.stages.preprocess import preprocess_spec

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES: Final[Mapping[Precision, torch.dtype]] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

# These matter in training, or for what else a tower returns; the features do not depend on them.
_NO_MATTER: Final = ("patch_dropout", "output_tokens", "timm_model_pretrained", "timm_drop", "timm_drop_path")


@dataclass(frozen=True, slots=True)
class Tower:
    """
    An image tower in evaluation mode on its device, and the parts of its identity.
    """

    module: torch.nn.Module
    architecture_sha256: str
    weights_sha256: str
    preprocess: PreprocessSpec


def load_tower(source: ClipSource, precision: Precision, device: torch.device) -> Tower:
    """
    The source's image tower with its weights, cast (never autocast) to ``precision``.

    The casting is open_clip's own: layer norms of its transformers stay in fp32. Raises ``EncoderInvalid``.
    """
    # The weights first: of a file that is not the right one, nothing is believed that may follow from it.
    tensors = read_tensors(source.checkpoint, source.sha256)
    module = build(source.architecture, precision)
    fit(module, tensors, source.checkpoint)
    del tensors
    weights_sha256 = tensors_sha256(module)
    module.eval().requires_grad_(requires_grad=False)
    cast(module, precision)
    try:
        preprocess = preprocess_spec({**source.preprocess, "size": module.image_size})
    except ValueError as error:
        raise EncoderInvalid(f"{source.name} cannot be used: {error}") from error
    return Tower(module.to(device), architecture_sha256(source.architecture), weights_sha256, preprocess)


def build(architecture: Mapping[str, Any], precision: Precision) -> torch.nn.Module:
    """
    An untrained image tower in fp32 as the configuration describes it, its layer norms ready for ``precision``.
    """
    try:
        given = CLIPVisionCfg(**architecture["vision_cfg"])
        if ":" in (given.timm_model_name or ""):
            raise EncoderInvalid(
                f"timm_model_name is {given.timm_model_name!r}: want a name of timm's own, which loads nothing"
            )
        vision = CLIPVisionCfg(**{**asdict(given), **_inert()})
        low = None if precision == "fp32" else DTYPES[precision]
        tower: torch.nn.Module = _build_vision_tower(
            architecture["embed_dim"], vision, bool(architecture.get("quick_gelu", False)), low
        )
    except (TypeError, KeyError, ValueError, RuntimeError, AssertionError) as error:
        raise EncoderInvalid(
            f"open_clip cannot build this architecture ({type(error).__name__}: {error}): check the model_cfg, or "
            "install the open_clip version that it was written for"
        ) from error
    return tower


def cast(module: torch.nn.Module, precision: Precision) -> None:
    """
    To the precision it runs in, in place, as ``open_clip.create_model`` does it (and CoCa, which it leaves broken).
    """
    if precision == "fp32":
        return
    if hasattr(module, "trunk"):
        module.to(DTYPES[precision])
        return
    convert_weights_to_lp(module, DTYPES[precision])
    for part in module.modules():
        # CoCa's pooler: open_clip leaves its query in fp32, and attention refuses the mixture.
        if isinstance(part, AttentionalPooler):
            part.query.data = part.query.data.to(DTYPES[precision])


def architecture_sha256(architecture: Mapping[str, Any]) -> str:
    """
    The identity of an image tower's architecture, activation included.

    Fields at open_clip's default are left out: a newer open_clip with more fields finds the same hash.
    """
    defaults, given = asdict(CLIPVisionCfg()), asdict(CLIPVisionCfg(**architecture["vision_cfg"]))
    vision = {name: value for name, value in given.items() if value != defaults[name] and name not in _NO_MATTER}
    # Towers of timm and ResNets bring their own activation; the flag is then about the text tower.
    own = given["timm_model_name"] is not None or isinstance(given["layers"], list | tuple)
    quick = bool(architecture.get("quick_gelu", False))
    activation = "own" if own else "quick_gelu" if quick else "gelu"
    return canonical_sha256({"embed_dim": architecture["embed_dim"], "activation": activation, "vision": vision})


def _inert() -> dict[str, Any]:
    """
    Nothing is dropped, downloaded or returned beside the features.
    """
    return {"patch_dropout": 0.0, "output_tokens": False, "timm_model_pretrained": False}
