"""
Towers that are built to be filled are the same, once they are filled.
"""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from worker.adapters.clip_tower import build
from worker.adapters.clip_unfilled import Unfilled

VIT = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 2, "head_width": 16}
TOWERS: Mapping[str, Mapping[str, Any]] = {
    "vision transformer": {"embed_dim": 16, "vision_cfg": VIT},
    "vision transformer that pools by attention": {"embed_dim": 16, "vision_cfg": {**VIT, "attentional_pool": True}},
    "resnet": {"embed_dim": 16, "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}},
    "tower of timm": {"embed_dim": 16, "vision_cfg": {"image_size": 64, "timm_model_name": "regnetx_002"}},
}


@pytest.mark.parametrize("architecture", TOWERS.values(), ids=TOWERS)
def test_a_filled_tower_is_the_one_that_was_drawn_first(architecture: Mapping[str, Any]) -> None:
    """
    All that a checkpoint does not hold is as it would be: features agree to the bit.
    """
    drawn = build(architecture, "fp32").eval()
    with Unfilled():
        filled = build(architecture, "fp32").eval()
    filled.load_state_dict(drawn.state_dict(), strict=True)
    side = architecture["vision_cfg"]["image_size"]
    pictures = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        features = drawn(pictures), filled(pictures)

    assert torch.equal(*features)
    assert all(torch.equal(one, dict(filled.named_buffers())[name]) for name, one in drawn.named_buffers())


def test_parameters_are_not_drawn_and_all_else_is() -> None:
    """
    Inside, a parameter keeps what it holds; other tensors, and what is computed of parameters, are as ever.
    """
    parameter, tensor = torch.nn.Parameter(torch.full((4,), 5.0)), torch.full((4,), 5.0)
    with Unfilled():
        torch.nn.init.normal_(parameter)
        torch.nn.init.kaiming_uniform_(torch.nn.Parameter(torch.ones(2, 2)))
        parameter.data.mul_(2)
        torch.nn.init.uniform_(tensor, 0, 1)
    after = parameter.detach().clone()
    torch.nn.init.uniform_(parameter, 0, 1)

    assert torch.equal(torch.full((4,), 10.0), after)
    assert bool((tensor < 5).all())
    assert bool((parameter < 5).all())
