"""
The fused tower: what it gives is what open_clip's tower gives, and towers that it does not know stay open_clip's.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch import nn

from tests.pictures import photograph, spec_of
from tests.small_encoder import read_tower
from worker.adapters import clip_linear
from worker.adapters.clip_fused import TOKENS_TOGETHER, FusedTower, fuse
from worker.adapters.clip_linear import Linear, packs
from worker.adapters.clip_tower import NormalisedTower, build, ready
from worker.dev.small_encoder import write_small_encoder

CPU = torch.device("cpu")
LIKE = torch.empty(0, dtype=torch.bfloat16)
SPEC = spec_of(64, mean=0.45, std=0.27)
SMALL = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 96, "layers": 3, "head_width": 32, "mlp_ratio": 3.0},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "class token": {},
    "mean of patches": {"pool_type": "avg"},
    "mean before the norm": {"pool_type": "avg", "final_ln_after_pool": True},
    "no norm before": {"no_ln_pre": True},
    "layer scale": {"ls_init_value": 0.3},
    "fixed positions": {"pos_embed_type": "sin_cos_2d"},
    "tanh": {"act_kwargs": {"approximate": "tanh"}},
    "another epsilon": {"norm_kwargs": {"eps": 1e-6}},
    "one layer": {"layers": 1},
    "oblong patches": {"image_size": 64, "patch_size": [16, 32]},
    "patches that leave a rest": {"image_size": 64, "patch_size": 20},
}


def pixels(count: int, side: int = 64) -> torch.Tensor:
    """
    So many different pictures.
    """
    return torch.from_numpy(np.stack([np.asarray(photograph(side, side, seed=n)) for n in range(count)]))


def a_tower(*, quick: bool = False, **more: object) -> nn.Module:
    """
    An untrained tower whose norms, biases and layer scales are not what they are by default.
    """
    torch.manual_seed(3)
    vision = {**SMALL["vision_cfg"], **more}  # type: ignore[dict-item] # a plain dictionary by its form
    tower = build({**SMALL, "vision_cfg": vision, "quick_gelu": quick}, "fp32").eval()
    for name, parameter in tower.named_parameters():
        if parameter.ndim == 1 and "embedding" not in name:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return tower.requires_grad_(requires_grad=False)


def cosines(tower: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
    """
    How near the features of a forward pass are to those of open_clip's tower in fp32.
    """
    exact = NormalisedTower(tower, SPEC, torch.empty(0))
    with torch.inference_mode():
        return torch.cosine_similarity(exact(batch), forward(batch).float())


@pytest.mark.parametrize(
    ("variant", "quick"), [(one, quick) for one in VARIANTS for quick in (False, True) if not (quick and one == "tanh")]
)
def test_fused_is_the_reference(variant: str, quick: bool) -> None:
    """
    Every variant of the plain transformer, with either activation, points where open_clip's own points in fp32.
    """
    tower = a_tower(quick=quick, **VARIANTS[variant])
    fused = fuse(copy.deepcopy(tower), SPEC, LIKE)

    assert fused is not None
    assert cosines(tower, fused, pixels(5)).min() >= 0.999


def test_in_fp32_folding_changes_nothing_but_rounding() -> None:
    """
    Computed in fp32, the fused tower's numbers are open_clip's: what is folded is folded rightly.
    """
    for options in VARIANTS.values():
        tower = a_tower(**options)
        fused = fuse(copy.deepcopy(tower), SPEC, torch.empty(0))
        assert fused is not None
        with torch.inference_mode():
            expected, found = NormalisedTower(tower, SPEC, torch.empty(0))(pixels(3)), fused(pixels(3))

        torch.testing.assert_close(expected, found, rtol=1e-4, atol=1e-4)


def test_a_real_shape_keeps_its_direction() -> None:
    """
    A ViT-B/32 (untrained, with QuickGELU) in bf16 has a cosine of at least 0.999 to open_clip's in fp32.
    """
    torch.manual_seed(0)
    tower = build(open_clip.get_model_config("ViT-B-32-quickgelu"), "fp32").eval().requires_grad_(requires_grad=False)
    _, forward = ready(copy.deepcopy(tower), SPEC, "bf16", CPU)

    assert isinstance(forward, FusedTower)
    assert cosines(tower, forward, pixels(3, side=224)).min() >= 0.999


def test_a_picture_has_the_features_that_it_has_alone() -> None:
    """
    Of a batch that goes through in several parts, each picture's features are those that it has alone.
    """
    tower = a_tower()
    fused = fuse(tower, SPEC, LIKE)
    assert fused is not None
    batch = pixels(TOKENS_TOGETHER // 17 + 6)
    with torch.inference_mode():
        together = nn.functional.normalize(fused(batch).float())
        alone = nn.functional.normalize(torch.cat([fused(one[None]) for one in batch]).float())

    assert len(together) == len(batch)
    assert (together - alone).abs().max() <= 1e-2  # so small a tower rounds coarsely; its neighbours lie far apart
    assert list(range(len(batch))) == (together @ alone.T).argmax(dim=1).tolist()


def test_without_packed_products_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where torch has no products of weights laid out beforehand, plain ones give the same up to rounding.
    """
    tower = a_tower(quick=True, ls_init_value=0.3)
    packed = fuse(copy.deepcopy(tower), SPEC, LIKE)
    monkeypatch.setattr(clip_linear, "_TRIED", {torch.bfloat16: False})
    plain = fuse(copy.deepcopy(tower), SPEC, LIKE)
    assert packed is not None
    assert plain is not None
    with torch.inference_mode():
        near = torch.cosine_similarity(packed(pixels(4)).float(), plain(pixels(4)).float())

    assert not packs(LIKE)
    assert near.min() >= 0.999


def test_products_that_do_not_agree_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An operation that torch has under the name but that computes something else is found out before it is used.
    """
    monkeypatch.setattr(clip_linear, "_TRIED", {})
    monkeypatch.setattr(clip_linear, "_FUSED", {**clip_linear._FUSED, "gelu": ("relu", "")})

    assert not packs(LIKE)
    assert not packs(torch.empty(0))


@pytest.mark.parametrize("activation", ["none", "gelu", "gelu_tanh", "silu"])
def test_a_product_with_what_follows_it(activation: clip_linear.Activation) -> None:
    """
    Product, bias and activation, or product, bias and sum, whichever way they are computed.
    """
    torch.manual_seed(1)
    weight, bias, values, residual = (torch.randn(*size) / 4 for size in ((24, 40), (24,), (2, 7, 40), (2, 7, 24)))
    product = Linear(weight, bias, like=LIKE, activation=activation)
    plain = nn.functional.linear(values.bfloat16(), weight.bfloat16(), bias.bfloat16()).float()
    wanted = {
        "none": plain,
        "gelu": nn.functional.gelu(plain),
        "gelu_tanh": nn.functional.gelu(plain, approximate="tanh"),
        "silu": nn.functional.silu(plain),
    }
    found = product(values.bfloat16()).float()

    torch.testing.assert_close(wanted[activation], found, rtol=2e-2, atol=2e-2)
    if activation == "none":
        summed = product(values.bfloat16(), residual.bfloat16()).float()
        torch.testing.assert_close(plain + residual, summed, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    "name", ["RN50", "convnext_base", "coca_ViT-B-32", "ViT-B-16-SigLIP", "MobileCLIP-S1", "EVA02-B-16"]
)
def test_towers_of_another_make_are_left_as_they_are(name: str) -> None:
    """
    ResNets, towers of timm and CoCa's pooler are none of the plain transformer's.
    """
    with torch.device("meta"):
        tower = build(open_clip.get_model_config(name), "bf16")

    assert fuse(tower, SPEC, LIKE) is None


def test_changed_parts_are_not_fused() -> None:
    """
    A block with another kind of attention, norm or activation than open_clip's default is not taken for one.
    """
    changed: dict[str, Callable[[Any], None]] = {
        "zero attention": lambda tower: setattr(tower.transformer.resblocks[1].attn, "add_zero_attn", True),
        "relu": lambda tower: setattr(tower.transformer.resblocks[2].mlp, "gelu", nn.ReLU()),
        "no norm": lambda tower: setattr(tower.transformer.resblocks[0], "ln_1", nn.Identity()),
        "tokens": lambda tower: setattr(tower, "output_tokens", True),
        "no projection": lambda tower: setattr(tower, "proj", None),
    }
    for change in changed.values():
        tower = a_tower()
        change(tower)

        assert fuse(tower, SPEC, LIKE) is None
    assert fuse(a_tower(scale_attn=True), SPEC, LIKE) is None


def test_fp32_is_never_fused(tmp_path_factory: pytest.TempPathFactory) -> None:
    """
    In fp32 the tower is open_clip's, whatever it is; only in lower precisions is it fused.
    """
    tower = read_tower(write_small_encoder(tmp_path_factory.mktemp("small")))
    module, exact = ready(copy.deepcopy(tower), SPEC, "fp32", CPU)
    _, rough = ready(copy.deepcopy(tower), SPEC, "bf16", CPU)

    assert type(module) is type(tower)
    assert isinstance(exact, NormalisedTower)
    assert isinstance(rough, FusedTower)
