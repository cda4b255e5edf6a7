"""
The generator side: small auto-encoders whose decoders grow a picture from a coarse code, as latent generators do.

Each kind of up-sampling leaves its own trace (Odena et al., Distill 2016; Durall et al., CVPR 2020). They are trained
here, for minutes, on the project's own pictures; nothing is downloaded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from worker.starter.camera import Bytes

Growth = Literal["nearest", "bilinear", "transposed", "shuffle"]

BATCH: Final = 16


@dataclass(frozen=True, slots=True)
class DecoderKind:
    """
    How one generator grows pictures: the way of each doubling, how many of them, and how wide its code is.
    """

    name: str
    growth: Growth
    doublings: int
    code_channels: int
    noise: float


KINDS: Final = (
    DecoderKind("nearest-x8", "nearest", 3, 16, 0.10),
    DecoderKind("nearest-x4", "nearest", 2, 8, 0.15),
    DecoderKind("transposed-x4", "transposed", 2, 8, 0.10),
    DecoderKind("transposed-x8", "transposed", 3, 16, 0.05),
    DecoderKind("shuffle-x8", "shuffle", 3, 16, 0.10),
    DecoderKind("bilinear-x4", "bilinear", 2, 8, 0.10),
)


class AutoEncoder(nn.Module):
    """
    A picture, float32[n, 3, h, w] in -1 to 1, to a code 2^doublings times smaller and noisy, and back.
    """

    def __init__(self, kind: DecoderKind, width: int = 32) -> None:
        super().__init__()
        self.kind = kind
        down: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
        for _ in range(kind.doublings):
            down += [nn.SiLU(), nn.Conv2d(width, width, 4, stride=2, padding=1)]
        self.encoder = nn.Sequential(*down, nn.SiLU(), nn.Conv2d(width, kind.code_channels, 3, padding=1), nn.Tanh())
        up: list[nn.Module] = [nn.Conv2d(kind.code_channels, width, 3, padding=1), nn.SiLU()]
        for _ in range(kind.doublings):
            up += [*_doubling(kind.growth, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU()]
        self.decoder = nn.Sequential(*up, nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """
        The pictures as this decoder would have drawn them.
        """
        code = self.encoder(pictures)
        drawn: torch.Tensor = self.decoder(code + torch.randn_like(code) * self.kind.noise)
        return drawn


def _doubling(growth: Growth, width: int) -> list[nn.Module]:
    match growth:
        case "nearest":
            return [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(width, width, 3, padding=1)]
        case "bilinear":
            return [nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(width, width, 3, padding=1)]
        case "transposed":
            return [nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)]
        case "shuffle":
            return [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2)]


def train_decoder(
    kind: DecoderKind, pictures: Sequence[Bytes], *, steps: int, seed: int, progress: Callable[[float], None]
) -> AutoEncoder:
    """
    An auto-encoder of this kind, trained on random 64-pixel crops of the pictures to draw them again.

    The loss is that of the difference and of its gradients, so that what it draws is sharp enough to be taken for one.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = AutoEncoder(kind)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    for _ in range(steps):
        wanted = to_tensor(np.stack([_crop(pictures[int(rng.integers(len(pictures)))], 64, rng) for _ in range(BATCH)]))
        drawn = model(wanted)
        loss = functional.l1_loss(drawn, wanted) + functional.l1_loss(_gradients(drawn), _gradients(wanted))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch has no types for it
        optimiser.step()
        schedule.step()
        progress(float(loss.detach()))
    return model.eval()


@torch.inference_mode()
def drawn_by(model: AutoEncoder, picture: Bytes) -> Bytes:
    """
    The picture, uint8[h, w, 3], as the decoder draws it; its sides are cut to whole code cells.
    """
    cell = 2**model.kind.doublings
    height, width = (side // cell * cell for side in picture.shape[:2])
    drawn = model(to_tensor(picture[None, :height, :width]))[0].permute(1, 2, 0).numpy()
    rounded: Bytes = np.clip(np.rint((drawn + 1) * 127.5), 0, 255).astype(np.uint8)
    return rounded


def to_tensor(pictures: Bytes) -> torch.Tensor:
    """
    uint8[n, h, w, 3] as float32[n, 3, h, w] in -1 to 1.
    """
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def _gradients(pictures: torch.Tensor) -> torch.Tensor:
    across = (pictures[..., 1:] - pictures[..., :-1]).flatten(1)
    down = (pictures[..., 1:, :] - pictures[..., :-1, :]).flatten(1)
    return torch.cat([across, down], dim=1)


def _crop(picture: Bytes, side: int, rng: np.random.Generator) -> Bytes:
    top = int(rng.integers(picture.shape[0] - side + 1))
    left = int(rng.integers(picture.shape[1] - side + 1))
    return picture[top : top + side, left : left + side]
