"""
The image tower of an open_clip model: built, filled with verified weights, cast to its precision, identified.

Only this half is ever built: no text tower takes memory, and models whose text tower needs ``transformers`` or the
network work without either.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import torch

from worker.adapters.clip_fused import fuse
from worker.adapters.clip_library import AttentionalPooler, CLIPVisionCfg, build_vision_tower, convert_weights_to_lp
from worker.adapters.clip_source import ClipSource
from worker.adapters.clip_unfilled import Unfilled
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

    ``module`` is open_clip's, which takes normalised pictures; where it could be fused, a ``FusedTower``. ``forward``
    takes uint8[n, side, side, 3] on the device in either case.
    """

    module: torch.nn.Module
    forward: torch.nn.Module
    architecture_sha256: str
    weights_sha256: str
    preprocess: PreprocessSpec


class NormalisedTower(torch.nn.Module):
    """
    open_clip's own tower behind ToTensor and Normalize of torchvision, in their order of operations.

    So it agrees with them, and fp32 with open_clip, bit for bit.
    """

    def __init__(self, tower: torch.nn.Module, spec: PreprocessSpec, like: torch.Tensor) -> None:
        super().__init__()
        self.tower = tower
        self._dtype = like.dtype
        self._mean = torch.tensor(spec.mean, device=like.device).view(1, 3, 1, 1)
        self._std = torch.tensor(spec.std, device=like.device).view(1, 3, 1, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """
        The features of uint8[n, side, side, 3].
        """
        images = pixels.permute(0, 3, 1, 2).contiguous()
        normal = images.to(torch.float32).div_(255).sub_(self._mean).div_(self._std)
        features: torch.Tensor = self.tower(normal.to(self._dtype))
        return features


def load_tower(source: ClipSource, precision: Precision, device: torch.device) -> Tower:
    """
    The source's image tower with its weights, cast (never autocast) to ``precision``.

    A plain vision transformer is fused in bf16 and fp16. The casting of all others is open_clip's own: layer norms of
    its transformers stay in fp32. Raises ``EncoderInvalid``.
    """
    # The weights first: of a file that is not the right one, nothing is believed that may follow from it.
    tensors = read_tensors(source.checkpoint, source.sha256)
    with Unfilled():
        module = build(source.architecture, precision)
    fit(module, tensors, source.checkpoint)
    del tensors
    weights_sha256 = tensors_sha256(module)
    module.eval().requires_grad_(requires_grad=False)
    try:
        preprocess = preprocess_spec({**source.preprocess, "size": module.image_size})
    except ValueError as error:
        raise EncoderInvalid(f"{source.name} cannot be used: {error}") from error
    module, forward = ready(module, preprocess, precision, device)
    return Tower(module, forward, architecture_sha256(source.architecture), weights_sha256, preprocess)


def ready(
    module: torch.nn.Module, preprocess: PreprocessSpec, precision: Precision, device: torch.device
) -> tuple[torch.nn.Module, torch.nn.Module]:
    """
    A tower in fp32 as it runs in ``precision`` on ``device``, and its forward pass from pixels: see ``Tower``.
    """
    like = torch.empty(0, dtype=DTYPES[precision], device=device)
    fused = None if precision == "fp32" else fuse(module, preprocess, like)
    if fused is not None:
        return fused, fused.eval()
    cast(module, precision)
    module = module.to(device)
    return module, NormalisedTower(module, preprocess, like).eval()


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
        tower: torch.nn.Module = build_vision_tower(
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
