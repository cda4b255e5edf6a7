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

    No perceptual hash or credentials: a bank keeps none.
    """
    from worker.adapters.clip_encoder import load_encoder  # noqa: PLC0415 - torch takes seconds to import
    from worker.adapters.realism_statistics import statistics  # noqa: PLC0415 - likewise OpenCV
    from worker.bank.embedding import ReferenceEmbedder  # noqa: PLC0415 - likewise
    from worker.stages.decode import DecodeLimits, PillowDecoder  # noqa: PLC0415 - likewise
    from worker.telemetry.metrics import InMemoryRecorder  # noqa: PLC0415 - likewise

    encoder = load_encoder(settings.encoder, InMemoryRecorder())
    limits = DecodeLimits(formats=settings.decode.formats, max_pixels=settings.decode.max_pixels)

    def opened(views: "ViewSpec") -> "ReferenceEmbedder":
        decoder = PillowDecoder(encoder.fingerprint.preprocess, limits, None, views=views, statistics=statistics)
        return ReferenceEmbedder(encoder, decoder, settings.batch.size, settings.decode.threads, views)

    return opened
