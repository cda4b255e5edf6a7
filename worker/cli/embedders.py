"""
The configured encoder with what banks are built with: one way to open it, for every command that looks at pictures.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from worker.settings.tree import Settings

if TYPE_CHECKING:
    from worker.bank.embedding import ReferenceEmbedder
    from worker.views import ViewSpec


def open_embedder(settings: Settings, views: "ViewSpec") -> "ReferenceEmbedder":
    """
    The configured encoder, and the decoder of these views.
    """
    return embedder_opener(settings)(views)


def embedder_opener(settings: Settings) -> "Callable[[ViewSpec], ReferenceEmbedder]":
    """
    The configured encoder, loaded once, and a decoder for the views that are asked for.

    References come from reports and from the internet: they are decoded where the worker decodes uploads, in processes
    of their own unless ``decode.isolation`` says otherwise.
    """
    from worker.bank.embedding import ReferenceEmbedder  # noqa: PLC0415 - numpy and PIL; --help needs neither
    from worker.decoders import open_reference_decoder  # noqa: PLC0415 - likewise OpenCV
    from worker.encoders import load_encoder  # noqa: PLC0415 - likewise
    from worker.telemetry.metrics import InMemoryRecorder  # noqa: PLC0415 - likewise

    encoder = load_encoder(settings.encoder, InMemoryRecorder(), batch_size=settings.batch.size)

    def opened(views: "ViewSpec") -> "ReferenceEmbedder":
        decoder = open_reference_decoder(settings, encoder.fingerprint.preprocess, views)
        return ReferenceEmbedder(encoder, decoder, settings.batch.size, settings.decode.threads, views)

    return opened
