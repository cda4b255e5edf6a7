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
from worker.settings.tree import EncoderSettings
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.telemetry.metrics import InMemoryRecorder


@dataclass(frozen=True, slots=True)
class DemoBank:
    """
    Where the bank is, how many references it has, and which encoder it was made with.
    """

    bank: Path
    entries: int
    model: str
    checkpoint_sha256: str


def build_demo_bank(folder: Path) -> DemoBank:
    """
    A small encoder, and with it a bank of photographs beside generated images, below ``folder``.
    """
    small = write_small_encoder(folder / "encoder")
    settings = EncoderSettings(model=small.model, checkpoint_sha256=small.checkpoint_sha256, device="cpu")
    encoder = load_encoder(settings, recorder=InMemoryRecorder())
    decoder = PillowDecoder(encoder.fingerprint.preprocess, DecodeLimits(), perceptual_hash=None)
    entries = write_references(folder / "references")
    build_bank(
        list_source(folder / "references", GENERATED),
        folder / "bank",
        embedder=ReferenceEmbedder(encoder, decoder),
        plan=BuildPlan(id="demo"),
    )
    return DemoBank(folder / "bank", entries, small.model, small.checkpoint_sha256)
