"""
What a worker lane runs with: its settings, and the same instruments in this process for measuring the stages alone.

In this process everything has one thread, so that its CPU time is the work's own and no waiting of threads is in it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.adapters.image_store import RoutedImageStore, build_image_store
from worker.bench.banks import write_random_bank
from worker.bench.encoders import BenchEncoder
from worker.bench.live import settings_of
from worker.bench.stage_inputs import StageInputs
from worker.bench.uploads import file_events
from worker.decoders import open_reference_decoder
from worker.encoders import load_encoder
from worker.instruments import Instruments, open_instruments
from worker.settings.tree import Settings
from worker.telemetry.metrics import InMemoryRecorder
from worker.views import GLOBAL_ONLY


@dataclass(frozen=True, slots=True)
class Subject:
    """
    One worker to be measured: ``sets`` for its process, ``settings`` for us; ``store`` is to be closed.
    """

    sets: Sequence[str]
    settings: Settings
    encoder: BenchEncoder
    instruments: Instruments
    store: RoutedImageStore

    def told(self) -> dict[str, object]:
        """
        Which encoder it is, for the summary of a report.
        """
        return {
            "model": self.encoder.name,
            "backend": self.settings.encoder.backend,
            "precision": self.instruments.encoder.fingerprint.precision,
        }

    def inputs(self, paths: Sequence[str]) -> StageInputs:
        """
        These pictures at every point of their way.
        """
        return StageInputs.prepared(file_events("stages", paths), self.instruments, self.store, self.settings)


def opened_subject(sets: Sequence[str], encoder: BenchEncoder, *, references: int, folder: Path) -> Subject:
    """
    The subject of these settings; where they name no bank it has one of so many random references.

    Raises ``EncoderInvalid``, ``BankInvalid`` or ``ConfigInvalid`` as a worker's start does.
    """
    named = [*sets, *encoder.sets()]
    settings = alone(settings_of(named))
    if settings.bank.path is None and settings.bank.releases is None:
        loaded = load_encoder(settings.encoder, InMemoryRecorder())
        decoder = open_reference_decoder(settings, loaded.fingerprint.preprocess, GLOBAL_ONLY)
        bank = write_random_bank(folder, references, encoder=loaded, decoder=decoder)
        named.append(f"bank.path={json.dumps(str(bank))}")
        settings = alone(settings_of(named))
    instruments = open_instruments(settings, InMemoryRecorder())
    return Subject(named, settings, encoder, instruments, build_image_store(settings.fetch))


def alone(settings: Settings) -> Settings:
    """
    The same settings with one thread for the encoder, and decoding in this process.
    """
    encoder = settings.encoder.model_copy(update={"threads": 1, "instances": 1})
    decode = settings.decode.model_copy(update={"isolation": "threads", "threads": 1})
    return settings.model_copy(update={"encoder": encoder, "decode": decode})
