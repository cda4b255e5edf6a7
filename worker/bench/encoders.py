"""
The encoder of a benchmark: a configured one, or an architecture with seeded random weights where none are at hand.

Random weights run exactly as fast as trained ones; what verdicts they lead to means nothing, and every report says so.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import open_clip
import torch
from open_clip.constants import HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME

from worker.adapters.clip_source import LOCAL_DIR, resolve
from worker.adapters.clip_tower import build, load_tower
from worker.bank.files import sha256_of
from worker.dev.small_encoder import write_model_folder
from worker.errors import ConfigInvalid
from worker.settings.tree import EncoderSettings

SEED: Final = 7


@dataclass(frozen=True, slots=True)
class BenchEncoder:
    """
    What to configure a worker with, and the same weights as a model folder for whoever loads them without Touchstone.

    ``name`` is said in reports. ``folder`` holds an open_clip configuration and the image tower's weights alone.
    """

    name: str
    model: str
    checkpoint_sha256: str | None
    folder: Path
    trained: bool

    @property
    def notes(self) -> list[str]:
        """
        What a report must say of its weights.
        """
        return [] if self.trained else ["the weights are random: speed is valid, verdicts are not"]

    def sets(self) -> list[str]:
        """
        The settings that name it.
        """
        named = [f"encoder.model={json.dumps(self.model)}"]
        return (
            named if self.checkpoint_sha256 is None else [*named, f"encoder.checkpoint_sha256={self.checkpoint_sha256}"]
        )


def bench_encoder(settings: EncoderSettings, folder: Path) -> BenchEncoder:
    """
    The encoder that the settings name; an architecture without weights gets random ones, written into ``folder`` once.

    Raises ``EncoderInvalid`` as loading does, and ``ConfigInvalid`` for an architecture that open_clip does not know.
    """
    arch = settings.model.replace("/", "-")
    if settings.checkpoint is None and arch in open_clip.list_models():
        return random_encoder(arch, folder / arch)
    source = resolve(settings)
    copy = folder / f"weights-{source.sha256[:12]}"
    if not (copy / HF_SAFE_WEIGHTS_NAME).exists():
        tower = load_tower(source, "fp32", torch.device("cpu"))
        _write(copy, {"model_cfg": dict(source.architecture), "preprocess_cfg": dict(source.preprocess)}, tower.module)
    return BenchEncoder(source.name, settings.model, settings.checkpoint_sha256, copy, trained=True)


def random_encoder(arch: str, folder: Path) -> BenchEncoder:
    """
    An open_clip architecture with weights drawn from a seed, as a model folder that ``encoder.model`` may name.
    """
    if arch not in open_clip.list_models():
        raise ConfigInvalid(f"open_clip knows no architecture {arch!r}; name one such as ViT-B-32 or ViT-L-14")
    architecture = open_clip.get_model_config(arch)
    if not (folder / HF_SAFE_WEIGHTS_NAME).exists():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            tower = build(architecture, "fp32")
        _write(folder, {"model_cfg": architecture, "preprocess_cfg": {}}, tower)
    sha256 = sha256_of(folder / HF_SAFE_WEIGHTS_NAME)
    return BenchEncoder(arch, f"{LOCAL_DIR}{folder.resolve()}", sha256, folder, trained=False)


def _write(folder: Path, config: object, tower: torch.nn.Module) -> None:
    weights = {f"visual.{name}": tensor.detach().cpu().numpy() for name, tensor in tower.state_dict().items()}
    # Beside it and then in its place: a run that was killed here must leave no half-written weights.
    half = folder.with_name(f"{folder.name}.half")
    write_model_folder(half, config, weights)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME):
        (half / name).replace(folder / name)
    half.rmdir()
