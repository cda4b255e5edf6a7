"""
Training the starter encoder: supervised contrast over origins, and one logit for real against generated.

The tower is open_clip's own (a timm trunk with a linear projection), so that what is trained is what is loaded.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.timm_model import TimmModel
from torch import nn
from torch.nn import functional

from worker.starter.camera import Bytes
from worker.starter.corpus import Specimen
from worker.starter.laundering import laundered

SIDE_PX: Final = 96
DIM: Final = 128
MODEL_CONFIG: Final[dict[str, Any]] = {
    "model_cfg": {
        "embed_dim": DIM,
        "vision_cfg": {
            "timm_model_name": "regnetx_002",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": SIDE_PX,
        },
        "text_cfg": {},
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """
    How long and how; ``seed`` fixes every draw, on one machine.
    """

    steps: int = 4000
    batch: int = 96
    seed: int = 20261122
    peak_rate: float = 3e-3
    temperature: float = 0.1
    loaders: int = 1


_pool: Sequence[Specimen] = ()


def train_encoder(
    specimens: Sequence[Specimen], plan: TrainingPlan, progress: Callable[[int, float, float], None]
) -> tuple[TimmModel, nn.Linear]:
    """
    The trained tower and the logit beside it, which is not shipped; ``progress`` gets step, loss and accuracy.
    """
    torch.manual_seed(plan.seed)
    tower = TimmModel("regnetx_002", DIM, image_size=SIDE_PX, pool="avg", proj="linear", pretrained=False)
    logit = nn.Linear(DIM, 1)
    parameters = [*tower.parameters(), *logit.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=plan.peak_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.peak_rate, total_steps=plan.steps, pct_start=0.15)
    families = sorted({one.family for one in specimens})
    smoothed_loss, smoothed_accuracy = 1.0, 0.5
    for step, (pixels, rows) in enumerate(_batches(specimens, plan), start=1):
        family = torch.tensor([families.index(specimens[row].family) for row in rows])
        generated = torch.tensor([float(specimens[row].generated) for row in rows])
        raw = tower(normalised(pixels))
        unit = functional.normalize(raw, dim=1)
        said = logit(functional.normalize(raw, dim=1) * 8)[:, 0]
        loss = functional.binary_cross_entropy_with_logits(said, generated)
        loss = loss + 0.5 * supervised_contrast(unit, family, plan.temperature)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch has no types for it
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        schedule.step()
        accuracy = float(((said.detach() > 0) == (generated > 0)).float().mean())
        smoothed_loss += 0.02 * (float(loss.detach()) - smoothed_loss)
        smoothed_accuracy += 0.02 * (accuracy - smoothed_accuracy)
        progress(step, smoothed_loss, smoothed_accuracy)
    return tower.eval(), logit.eval()


def supervised_contrast(unit: torch.Tensor, family: torch.Tensor, temperature: float) -> torch.Tensor:
    """
    The supervised contrastive loss L_out (Khosla et al., NeurIPS 2020, equation 2) over one batch of unit vectors.
    """
    similarity = unit @ unit.T / temperature
    itself = torch.eye(len(unit), dtype=torch.bool)
    log_share = similarity - torch.logsumexp(similarity.masked_fill(itself, -torch.inf), dim=1, keepdim=True)
    same = (family[:, None] == family[None, :]) & ~itself
    counted = same.sum(1).clamp(min=1)
    per_anchor = -(log_share * same).sum(1) / counted
    return per_anchor[same.any(1)].mean()


def normalised(pixels: Bytes) -> torch.Tensor:
    """
    uint8[n, side, side, 3] as the preprocessing of ``MODEL_CONFIG`` gives it to the tower.
    """
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255).sub_(0.5).div_(0.25)


def _batches(specimens: Sequence[Specimen], plan: TrainingPlan) -> Iterator[tuple[Bytes, NDArray[np.int64]]]:
    """
    Balanced batches in a fixed order, laundered ahead in other processes, which inherit the specimens by forking.
    """
    global _pool  # noqa: PLW0603 - the forked processes find the pictures here instead of receiving gigabytes
    _pool = specimens
    draw = np.random.default_rng(plan.seed)
    chance = _chances(specimens)
    with ProcessPoolExecutor(plan.loaders) as pool:
        ahead = []
        for step in range(plan.steps + 4):
            if step < plan.steps:
                rows = draw.choice(len(specimens), size=plan.batch, p=chance)
                ahead.append((rows, pool.submit(_launder, rows, (plan.seed, step))))
            if step >= 4:
                rows, future = ahead.pop(0)
                yield future.result(), rows


def _launder(rows: NDArray[np.int64], seed: tuple[int, int]) -> Bytes:
    rng = np.random.default_rng(seed)
    return np.stack([laundered(_pool[row].pixels, SIDE_PX, rng) for row in rows])


def _chances(specimens: Sequence[Specimen]) -> NDArray[np.float64]:
    """
    Half of what is drawn is real; of the generated, every family has the same share.
    """
    families = [one.family for one in specimens]
    count = {family: families.count(family) for family in set(families)}
    drawn = len(count) - 1
    chance = np.array([0.5 / count[family] / (1 if family == "camera" else drawn) for family in families])
    share: NDArray[np.float64] = chance / chance.sum()
    return share
