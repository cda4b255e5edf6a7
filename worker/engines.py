"""
Where references are embedded: in threads of this process, or by actors on a Ray cluster. Part of the composition root.

What an actor does is ``worker.adapters.ray_embedding``; here is which settings it gets, and how it opens them.
"""

from pathlib import Path
from typing import Final

from worker.adapters.ray_room import RayRoom
from worker.bank.embedding import Engine, ReferenceEmbedder
from worker.decoders import open_reference_decoder
from worker.encoders import load_encoder
from worker.errors import ConfigInvalid
from worker.settings.images import DecodeSettings
from worker.settings.section import Section
from worker.settings.tree import BatchSettings, EncoderSettings, Settings
from worker.telemetry.metrics import InMemoryRecorder
from worker.views import ViewSpec

_LOCAL_DIR: Final = "local-dir:"


class ActorOrder(Section):
    """
    The settings that an actor needs, and no others: none of these sections holds a secret.
    """

    encoder: EncoderSettings
    decode: DecodeSettings
    batch: BatchSettings
    views: ViewSpec


def ray_engine(settings: Settings, views: ViewSpec, room: RayRoom) -> Engine:
    """
    An engine whose actors open the configured encoder. Raises ``ConfigInvalid`` where Ray is not installed.
    """
    try:
        from worker.adapters.ray_embedding import RayEngine  # noqa: PLC0415 - only where it is asked for
    except ModuleNotFoundError as error:
        raise ConfigInvalid(
            f"--engine ray needs the package {error.name}, which is not installed: `pip install "
            "'touchstone-worker[ray]'` here and on every node of the cluster, or use --engine local"
        ) from error
    return RayEngine(room, open_in_actor, order_of(settings, views, room.cpus).model_dump_json())


def order_of(settings: Settings, views: ViewSpec, cpus: int) -> ActorOrder:
    """
    The order for actors of so many CPUs: no more threads than these, and paths that hold in any working directory.
    """
    encoder, decode = settings.encoder, settings.decode
    threads = min(encoder.threads or cpus, cpus)
    paths = {
        name: None if path is None else path.absolute()
        for name, path in (("checkpoint", encoder.checkpoint), ("export_dir", encoder.export_dir))
    }
    model = encoder.model
    if model.startswith(_LOCAL_DIR):
        model = f"{_LOCAL_DIR}{Path(model.removeprefix(_LOCAL_DIR)).absolute()}"
    return ActorOrder(
        encoder=encoder.model_copy(update={"threads": threads, "instances": 1, "model": model, **paths}),
        # References' credentials are not read: trust anchors need not be on the nodes.
        decode=decode.model_copy(update={"threads": cpus, "trust_anchors": None}),
        batch=settings.batch,
        views=views,
    )


def open_in_actor(order: str) -> ReferenceEmbedder:
    """
    The embedder that an order asks for. Raises ``EncoderInvalid`` or ``CannotStart`` where this node cannot have it.
    """
    asked = ActorOrder.model_validate_json(order, strict=True)
    encoder = load_encoder(asked.encoder, InMemoryRecorder(), batch_size=asked.batch.size)
    settings = Settings().model_copy(update={"encoder": asked.encoder, "decode": asked.decode})
    decoder = open_reference_decoder(settings, encoder.fingerprint.preprocess, asked.views)
    return ReferenceEmbedder(encoder, decoder, asked.batch.size, asked.decode.threads, asked.views)
