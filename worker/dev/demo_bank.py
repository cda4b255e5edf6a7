"""
The demo's encoder and bank, made anew for each demo.
"""

from dataclasses import dataclass
from pathlib import Path

from worker.adapters.clip_encoder import load_encoder
from worker.bank.build import BuildPlan, build_bank
from worker.bank.embedding import ReferenceEmbedder
from worker.bank.manifest import GENERATED
from worker.bank.sources import list_source
from worker.dev.demo import write_references
from worker.dev.small_encoder import write_small_encoder
from worker.errors import EncoderInvalid
from worker.ports import Encoder
from worker.settings.tree import EncoderSettings
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.telemetry.metrics import InMemoryRecorder

PRETRAINED = "ViT-B-32-quickgelu/openai"
"""Used where its weights are in the hub's cache already; small enough for a minute on a CPU."""


@dataclass(frozen=True, slots=True)
class DemoBank:
    """
    Where the bank is, how many references it has, and which encoder it was made with.
    """

    bank: Path
    entries: int
    encoder: EncoderSettings
    pretrained: bool


def build_demo_bank(folder: Path) -> DemoBank:
    """
    An encoder, and with it a bank of photographs beside generated images, below ``folder``.
    """
    settings, encoder, pretrained = _encoder(folder)
    decoder = PillowDecoder(encoder.fingerprint.preprocess, DecodeLimits(), perceptual_hash=None)
    entries = write_references(folder / "references")
    build_bank(
        list_source(folder / "references", GENERATED),
        folder / "bank",
        embedder=ReferenceEmbedder(encoder, decoder),
        plan=BuildPlan(id="demo"),
    )
    return DemoBank(folder / "bank", entries, settings, pretrained)


def _encoder(folder: Path) -> tuple[EncoderSettings, Encoder, bool]:
    recorder = InMemoryRecorder()
    pretrained = EncoderSettings(model=PRETRAINED, offline=True)
    try:
        return pretrained, load_encoder(pretrained, recorder=recorder), True
    except EncoderInvalid:
        small = write_small_encoder(folder / "encoder")
    settings = EncoderSettings(model=small.model, checkpoint_sha256=small.checkpoint_sha256, device="cpu")
    return settings, load_encoder(settings, recorder=recorder), False
