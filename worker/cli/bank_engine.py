"""
The options that say where references are embedded, and the engine that they ask for.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from worker.errors import ConfigInvalid
from worker.settings.tree import Settings

if TYPE_CHECKING:
    from worker.bank.embedding import Engine
    from worker.views import ViewSpec

Command = Callable[..., int]

_OF_RAY: Final = {
    "ray_address": "--ray-address",
    "actors": "--actors",
    "actor_cpus": "--actor-cpus",
    "actor_gpus": "--actor-gpus",
}


def engine_options(command: Command) -> Command:
    """
    The options by which a large corpus is embedded on many machines.
    """
    options = [
        click.option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help="Where pictures are decoded and encoded: here, or by actors on a Ray cluster. Its nodes need the same "
            "files under the same paths, the same touchstone-worker[ray] and the same model files. The bank is the "
            "same; where other machines' kernels round differently, within the encoder's tolerance for companions in "
            "a batch. Uploads that were judged already are embedded again by `touchstone replay`, not by this.",
        ),
        click.option(
            "--ray-address",
            metavar="HOST:PORT|auto",
            help="The Ray cluster; run the command on one of its nodes. Default: RAY_ADDRESS, or a cluster that is "
            "started on this machine and ended with the command.",
        ),
        click.option(
            "--actors",
            type=click.IntRange(1, 10_000),
            metavar="N",
            help="How many actors, each with its own encoder. Default: as many as find room.",
        ),
        click.option(
            "--actor-cpus",
            type=click.IntRange(1, 1024),
            metavar="N",
            help="CPUs of each actor, and at most so many threads of its encoder and decoder. Default: 1.",
        ),
        click.option(
            "--actor-gpus",
            type=click.FloatRange(0, 64),
            metavar="SHARE",
            help="GPUs of each actor; 0.5 puts two on one. Without, actors see no GPU. Default: 0.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def chosen_engine(options: Mapping[str, Any], settings: Settings, views: "ViewSpec") -> "Engine | None":
    """
    The engine that the options ask for; None to embed here.

    Raises ``ConfigInvalid`` where the options do not go together, or Ray is not installed.
    """
    given = [name for key, name in _OF_RAY.items() if options[key] is not None]
    if options["engine"] == "local":
        if given:
            raise ConfigInvalid(f"{given[0]} is for actors on a Ray cluster; it needs --engine ray too")
        return None
    from worker.adapters.ray_room import RayRoom  # noqa: PLC0415 - only where it is asked for
    from worker.engines import ray_engine  # noqa: PLC0415 - numpy and PIL; --help needs neither

    room = RayRoom(
        actors=options["actors"],
        cpus=options["actor_cpus"] or 1,
        gpus=options["actor_gpus"] or 0.0,
        address=options["ray_address"],
    )
    return ray_engine(settings, views, room)
