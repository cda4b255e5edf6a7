"""
The peer: its forward pass against a plain one, its published weights, and files that are something else.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.evaluation_parts import drawn_picture
from worker.adapters.tiny_ladeda import SHAPES, SIDE, TinyLadeda
from worker.errors import CannotStart


def random_weights(path: Path, **changes: torch.Tensor) -> dict[str, torch.Tensor]:
    """
    Weights of the right shapes, written as the published ones are.
    """
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.rand(shape, generator=generator) - 0.3 for name, shape in SHAPES.items()}
    weights |= {name: value.abs() + 0.5 for name, value in weights.items() if name.endswith("running_var")}
    torch.save({**weights, "bn1.num_batches_tracked": torch.tensor(7), **changes}, path)
    return weights


def test_the_forward_pass_is_that_of_plain_layers(tmp_path: Path) -> None:
    """
    Four convolutions as torch's own modules, fed with a gradient that is written out in numpy, give the same logit.
    """
    weights = random_weights(tmp_path / "peer.pth")
    picture = drawn_picture("checker", seed=2)
    found = TinyLadeda(tmp_path / "peer.pth").logits([picture])
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 1, bias=False),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
    ).eval()
    places = ("conv1", "conv2", "bn1", None, "layer1.0.conv1", "layer1.0.bn1", None, "layer1.0.conv2", "layer1.0.bn2")
    for layer, place in zip(layers, places, strict=False):
        if place is not None:
            own = {name.removeprefix(f"{place}."): value for name, value in weights.items() if name.startswith(place)}
            layer.load_state_dict({**layer.state_dict(), **own})
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float64) / 255
    normal = (small - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    around = np.pad(normal, ((1, 1), (1, 1), (0, 0)))
    at = {(y, x): around[1 + y : 1 + y + SIDE, 1 + x : 1 + x + SIDE] for y in (-1, 0, 1) for x in (-1, 0, 1)}
    gradient = 2 * (at[1, 1] - at[-1, -1]) + at[0, 1] + at[1, 0] - at[0, -1] - at[-1, 0]
    with torch.no_grad():
        patches = layers(torch.from_numpy(gradient).permute(2, 0, 1)[None].float())
    logits = patches.permute(0, 2, 3, 1) @ weights["fc.weight"][0] + weights["fc.bias"]

    assert found.shape == (1,)
    assert found[0] == pytest.approx(float(logits.mean()), rel=1e-4)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    """
    The message names the tensors that do not fit.
    """
    random_weights(tmp_path / "other.pth", **{"fc.weight": torch.zeros(1, 2048)})
    (tmp_path / "text.pth").write_text("no weights")

    with pytest.raises(CannotStart, match=r"fc\.weight"):
        TinyLadeda(tmp_path / "other.pth")
    with pytest.raises(CannotStart, match="cannot be read"):
        TinyLadeda(tmp_path / "text.pth")


def test_weights_with_another_sha256_are_not_loaded(tmp_path: Path) -> None:
    """
    Where the caller says which they must have; a file that is not there is told as such.
    """
    path = tmp_path / "peer.pth"
    random_weights(path)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(CannotStart, match=rf"has sha256 {right}, expected {'0' * 64}"):
        TinyLadeda(path, expected=["0" * 64])
    with pytest.raises(CannotStart, match="No such file"):
        TinyLadeda(tmp_path / "none.pth")

    assert right == TinyLadeda(path, expected=[right]).sha256


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["WildRF", "ForenSynth"])
def test_the_published_weights_load(shared_data: Path, name: str) -> None:
    """
    1,300 parameters, a finite logit for pictures of any size and mode, each on its own.
    """
    peer = TinyLadeda(shared_data / "peers" / f"{name}_Tiny_LaDeDa.pth")
    pictures = [drawn_picture("", seed=1), drawn_picture("checker", seed=2).convert("L")]
    found = peer.logits(pictures)

    assert peer.name == f"peer:{name}_Tiny_LaDeDa"
    assert np.all(np.isfinite(found))
    assert found[1] == peer.logits(pictures[1:])[0]
