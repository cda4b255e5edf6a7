"""
Training the starter encoder: supervised contrast of real against generated and over origins, and one logit.

The tower is open_clip's own (a timm trunk with a linear projection), so that what is trained is what is loaded.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.timm_model import TimmModel
from torch import nn
from torch.nn import functional

from worker.starter.camera import Bytes
from worker.starter.corpus import REAL_FAMILIES, Specimen
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

    Neighbours are to be of the same label first and of the same origin second, so contrast over labels weighs twice
    that over origins.
    """
    torch.manual_seed(plan.seed)
    tower = TimmModel("regnetx_002", DIM, image_size=SIDE_PX, pool="avg", proj="linear", pretrained=False)
    logit = nn.Linear(DIM, 1)
    parameters = [*tower.parameters(), *logit.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=plan.peak_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.peak_rate, total_steps=plan.steps, pct_start=0.15)
    origins = ["real", *sorted({one.family for one in specimens if one.generated})]
    smoothed_loss, smoothed_accuracy = 1.0, 0.5
    for step, (pixels, rows) in enumerate(_batches(specimens, plan), start=1):
        chosen = [specimens[row] for row in rows]
        origin = torch.tensor([origins.index(one.family if one.generated else "real") for one in chosen])
        generated = origin.ne(0).float()
        unit = functional.normalize(tower(normalised(pixels)), dim=1)
        said = logit(unit * 8)[:, 0]
        loss = functional.binary_cross_entropy_with_logits(said, generated)
        loss = loss + 0.5 * supervised_contrast(unit, generated.long(), plan.temperature)
        loss = loss + 0.25 * supervised_contrast(unit, origin, plan.temperature)
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


class Draws:
    """
    Which specimens meet in a batch: pairs of a generated and a real one, twins wherever there is one.

    Twins are laundered alike and cut from the same place, so that nothing but the trace tells them apart (aligned
    pairs: Rajan et al., ICLR 2025). Every generator has the same share, and so have real families without a twin.
    """

    def __init__(self, specimens: Sequence[Specimen], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._of_family: dict[str, list[int]] = {}
        twins: dict[tuple[str, tuple[int, ...]], int] = {}
        for row, one in enumerate(specimens):
            self._of_family.setdefault(one.family, []).append(row)
            if not one.generated:
                twins[one.content, one.pixels.shape] = row
        self._twin = [twins.get((one.content, one.pixels.shape)) for one in specimens]
        self._real = [family for family in REAL_FAMILIES if family in self._of_family]
        self._drawn = sorted(set(self._of_family) - set(self._real))

    def pairs(self, count: int) -> NDArray[np.int64]:
        """
        int64[count, 2]: rows of generated specimens, and of the real ones beside them.
        """
        return np.array([self._pair() for _ in range(count)], dtype=np.int64)

    def _pair(self) -> tuple[int, int]:
        generated = self._one_of(self._drawn)
        twin = self._twin[generated]
        return generated, self._one_of(self._real) if twin is None else twin

    def _one_of(self, families: Sequence[str]) -> int:
        rows = self._of_family[families[int(self._rng.integers(len(families)))]]
        return rows[int(self._rng.integers(len(rows)))]


def _batches(specimens: Sequence[Specimen], plan: TrainingPlan) -> Iterator[tuple[Bytes, NDArray[np.int64]]]:
    """
    Batches in a fixed order, laundered ahead in other processes, which inherit the specimens by forking.
    """
    global _pool  # noqa: PLW0603 - the forked processes find the pictures here instead of receiving gigabytes
    _pool = specimens
    draws = Draws(specimens, plan.seed)
    with ProcessPoolExecutor(plan.loaders) as pool:
        ahead: list[tuple[NDArray[np.int64], Future[Bytes]]] = []
        for step in range(plan.steps + 4):
            if step < plan.steps:
                rows = draws.pairs(plan.batch // 2)
                ahead.append((rows.ravel(), pool.submit(_launder, rows, (plan.seed, step))))
            if step >= 4:
                drawn, future = ahead.pop(0)
                yield future.result(), drawn


def _launder(pairs: NDArray[np.int64], seed: tuple[int, int]) -> Bytes:
    """
    Both of a pair with the same draws: of twins, the same window through the same steps.
    """
    return np.stack(
        [
            laundered(_pool[row].pixels, SIDE_PX, np.random.default_rng((*seed, number)))
            for number, pair in enumerate(pairs.tolist())
            for row in pair
        ]
    )
