"""
The decoder as configured. Part of the composition root: it joins the decode stage to the libraries that it asks.
"""

import hashlib
from importlib.metadata import version
from typing import Final

import structlog

from worker.adapters.content_credentials import credentials_reader
from worker.adapters.perceptual_hash import pdq
from worker.adapters.realism_statistics import statistics
from worker.adapters.torch_resize import open_resizer
from worker.decoding.device_decoder import DeviceDecoder, Ordinary
from worker.decoding.process_decoder import Lifetimes, ProcessDecoder
from worker.decoding.protocol import Setup
from worker.domain import PreprocessSpec
from worker.errors import CannotStart
from worker.ports import Encoder, PictureDecoder, Recorder
from worker.settings.images import DecodeSettings
from worker.settings.tree import Settings
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.stages.frames import LOOK_RULES
from worker.stages.left_to_device import LeavingJpegs, pixels_left
from worker.stages.preprocess import Resizer
from worker.views import GLOBAL_ONLY, ViewSpec

log = structlog.get_logger(__name__)

_SHORT: Final = 12


def open_decoder(
    settings: Settings, encoder: Encoder, views: ViewSpec = GLOBAL_ONLY, *, recorder: Recorder | None = None
) -> PictureDecoder:
    """
    The decoder that makes this encoder's input and these views, under the configured limits, isolated as configured.

    ``recorder`` counts the processes that end. Close it with ``close_decoder``, or it is closed when nothing holds it
    any more. Raises ``CannotStart`` for formats or trust anchors that cannot be read; in a process, formats are looked
    at by the first that is started, which is when the first picture is decoded.
    """
    return open_decoder_of(settings, encoder.fingerprint.preprocess, views, recorder=recorder)


def open_decoder_of(
    settings: Settings, preprocess: PreprocessSpec, views: ViewSpec = GLOBAL_ONLY, *, recorder: Recorder | None = None
) -> PictureDecoder:
    """
    The same where there is no encoder, such as for the facts of one picture. Raises as ``open_decoder``.
    """
    left = pixels_left(preprocess, views, settings.decode.device_bytes)
    if left:
        return _with_device(settings, preprocess, views, recorder, device_pixels=left)
    if preprocess.jpeg_decoder != "pillow":
        log.warning(
            "decoder.device_unused",
            reason="the bank asks for crops, statistics or one re-encoding for all, which need the file's own pixels",
            advice='build a bank of the whole picture alone, or set encoder.jpeg_decoder = "pillow" for both',
        )
    if settings.decode.isolation == "threads":
        return _in_threads(settings, preprocess, views)
    return _in_processes(settings, preprocess, views, recorder)


def _in_processes(
    settings: Settings,
    preprocess: PreprocessSpec,
    views: ViewSpec,
    recorder: Recorder | None,
    *,
    device_pixels: int = 0,
) -> ProcessDecoder:
    decode = settings.decode
    setup = Setup(
        preprocess,
        _limits(decode),
        views,
        memory_bytes=decode.memory_bytes,
        cpu_s=decode.timeout_s,
        pictures=decode.recycle_after,
        perceptual_hash=decode.perceptual_hash,
        credentials=decode.credentials,
        trust_anchors_pem=_trust_anchors(decode) if decode.credentials else None,
        device_pixels=device_pixels,
    )
    lifetimes = Lifetimes(decode.threads, decode.timeout_s, decode.recycle_after)
    if recorder is None:
        return ProcessDecoder(setup, lifetimes)
    return ProcessDecoder(setup, lifetimes, on_end=lambda reason: recorder.count("decoders_ended_total", reason=reason))


def _with_device(
    settings: Settings, preprocess: PreprocessSpec, views: ViewSpec, recorder: Recorder | None, *, device_pixels: int
) -> DeviceDecoder:
    """
    Plain JPEGs on the encoder's device, the rest as ever. No process for what the device refuses before it does.
    """
    from worker.adapters.device_jpeg import DeviceJpegs  # noqa: PLC0415 - torch, only where it is configured

    decode = settings.decode
    if decode.isolation == "threads":
        plain = _in_threads(settings, preprocess, views)
        credentials = credentials_reader(_trust_anchors(decode)) if decode.credentials else None
        looking = LeavingJpegs(plain, _limits(decode), credentials, device_pixels)
        ordinary = Ordinary(looking.decode, plain)
    else:
        first = _in_processes(settings, preprocess, views, recorder, device_pixels=device_pixels)
        then = _in_processes(settings, preprocess, views, recorder)
        ordinary = Ordinary(first.look_into, then, (first, then))
    return DeviceDecoder(
        ordinary,
        DeviceJpegs("cpu" if preprocess.jpeg_decoder == "libjpeg" else _cuda(settings.encoder.device)),
        preprocess,
        pdq if decode.perceptual_hash else None,
        most_bytes=decode.device_bytes,
        on_end=lambda result: None if recorder is None else recorder.count("device_jpegs_total", result=result),
    )


def _cuda(configured: str) -> str:
    return configured if configured.startswith("cuda") else "cuda"


def open_reference_decoder(settings: Settings, preprocess: PreprocessSpec, views: ViewSpec) -> PictureDecoder:
    """
    The decoder of what goes into banks, isolated as configured: one look at each picture, no hash and no credentials.

    Under the configured limits to format, size and time. Raises as ``open_decoder``.
    """
    once = {"max_frames": 1, "grey_ground": False, "perceptual_hash": False, "credentials": False}
    decode = settings.decode.model_copy(update=once)
    return open_decoder_of(settings.model_copy(update={"decode": decode}), preprocess, views)


def _in_threads(settings: Settings, preprocess: PreprocessSpec, views: ViewSpec) -> PillowDecoder:
    return PillowDecoder(
        preprocess,
        _limits(settings.decode),
        perceptual_hash=pdq if settings.decode.perceptual_hash else None,
        views=views,
        statistics=statistics if views.realism else None,
        credentials=credentials_reader(_trust_anchors(settings.decode)) if settings.decode.credentials else None,
        resizer=resizer_of(preprocess),
    )


def device_version(decoder: PictureDecoder) -> str | None:
    """
    What decodes plain JPEGs on the encoder's device, for ``versions.decoder``; None where nothing does.
    """
    return decoder.version if isinstance(decoder, DeviceDecoder) else None


def resizer_of(preprocess: PreprocessSpec) -> Resizer | None:
    """
    What a spec's pictures are resized with, None for Pillow. Raises ``CannotStart`` where it is not to be had here.
    """
    return open_resizer() if preprocess.resize == "torch" else None


def credentials_version(settings: DecodeSettings) -> str | None:
    """
    How content credentials are read: library and trust anchors, which say what is valid and trusted; None if not read.
    """
    if not settings.credentials:
        return None
    anchors = _trust_anchors(settings)
    digest = "none" if anchors is None else hashlib.sha256(anchors.encode()).hexdigest()[:_SHORT]
    return f"{version('c2pa-python')}, trust anchors {digest}"


def look_rules(settings: DecodeSettings) -> str:
    """
    How the looks at animations and at transparent pictures are chosen: nothing else depends on these settings.
    """
    ground = "white and grey" if settings.grey_ground else "white"
    return f"{LOOK_RULES}, {settings.max_frames} of {settings.max_animation_pixels} px, {ground}"


def _limits(settings: DecodeSettings) -> DecodeLimits:
    return DecodeLimits(
        formats=settings.formats,
        max_pixels=settings.max_pixels,
        max_frames=settings.max_frames,
        max_animation_pixels=settings.max_animation_pixels,
        on_grey=settings.grey_ground,
    )


def _trust_anchors(settings: DecodeSettings) -> str | None:
    if settings.trust_anchors is None:
        return None
    try:
        return settings.trust_anchors.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as fault:
        raise CannotStart(
            f"decode.trust_anchors {settings.trust_anchors} cannot be read ({type(fault).__name__}); name a PEM file"
        ) from fault
