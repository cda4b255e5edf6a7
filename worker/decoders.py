"""
The decoder as configured. Part of the composition root: it joins the decode stage to the libraries that it asks.
"""

import hashlib
from importlib.metadata import version
from typing import Final

from worker.adapters.content_credentials import credentials_reader
from worker.adapters.perceptual_hash import pdq
from worker.adapters.realism_statistics import statistics
from worker.errors import CannotStart
from worker.ports import Encoder
from worker.settings.images import DecodeSettings
from worker.settings.tree import Settings
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.views import GLOBAL_ONLY, ViewSpec

_SHORT: Final = 12


def open_decoder(settings: Settings, encoder: Encoder, views: ViewSpec = GLOBAL_ONLY) -> PillowDecoder:
    """
    The decoder that makes this encoder's input and these views, under the configured limits.

    Raises ``CannotStart`` for formats or trust anchors that cannot be read.
    """
    return PillowDecoder(
        encoder.fingerprint.preprocess,
        DecodeLimits(formats=settings.decode.formats, max_pixels=settings.decode.max_pixels),
        perceptual_hash=pdq if settings.decode.perceptual_hash else None,
        views=views,
        statistics=statistics if views.realism else None,
        credentials=credentials_reader(_trust_anchors(settings.decode)) if settings.decode.credentials else None,
    )


def credentials_version(settings: DecodeSettings) -> str | None:
    """
    How content credentials are read: library and trust anchors, which say what is valid and trusted; None if not read.
    """
    if not settings.credentials:
        return None
    anchors = _trust_anchors(settings)
    digest = "none" if anchors is None else hashlib.sha256(anchors.encode()).hexdigest()[:_SHORT]
    return f"{version('c2pa-python')}, trust anchors {digest}"


def _trust_anchors(settings: DecodeSettings) -> str | None:
    if settings.trust_anchors is None:
        return None
    try:
        return settings.trust_anchors.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as fault:
        raise CannotStart(
            f"decode.trust_anchors {settings.trust_anchors} cannot be read ({type(fault).__name__}); name a PEM file"
        ) from fault
