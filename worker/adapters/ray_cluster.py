"""
A Ray cluster for the time of one piece of work: one that is there already, or one on this machine, ended afterwards.

What is computed on it is ``worker.adapters.ray_embedding``. Ray's usage statistics and its dashboard are off.
"""

import logging
import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

# Read by Ray when it is imported and by every process that it starts: no report to anybody, no bars beside ours.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
# Ray's core writes to our stderr by itself, also about what Ray Data does as it should.
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import ray
from ray.exceptions import RayError

from worker.adapters.ray_room import RayRoom
from worker.errors import CannotStart, ConfigInvalid

ADDRESS_VARIABLE: Final = "RAY_ADDRESS"
_LOCAL: Final = "local"


@contextmanager
def cluster(room: RayRoom) -> Iterator[int]:
    """
    Be connected to the cluster, and know how many actors to start there; what was started for this is ended with it.

    A process that is connected to Ray already stays so. Raises ``CannotStart`` where there is no cluster, or no node
    that holds one actor; ``ConfigInvalid`` for the address of a Ray Client.
    """
    with ExitStack() as ends:
        if not ray.is_initialized():
            ends.enter_context(_connected(room))
        yield _fitting(room)


@contextmanager
def _connected(room: RayRoom) -> Iterator[None]:
    address = room.address or os.environ.get(ADDRESS_VARIABLE) or _LOCAL
    if "://" in address:
        raise ConfigInvalid(
            f"the address of the Ray cluster is {address}, expected auto or HOST:PORT: run the build on a node of the "
            "cluster, for instance through `ray job submit`"
        )
    local = address == _LOCAL
    with _sigterm_kept(), ExitStack() as ends:
        folder = None
        if local and "RAY_TMPDIR" not in os.environ:
            # Sockets lie below it, whose paths may have about 100 characters: a short name.
            folder = ends.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
        ends.callback(ray.shutdown)
        try:
            if local:
                _start_here(room, folder)
            else:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as fault:
            what = "be started on this machine" if local else f"be reached at {address}"
            raise CannotStart(
                f"a Ray cluster cannot {what}: {fault}. `ray status` tells what runs; leave out --ray-address and "
                f"{ADDRESS_VARIABLE} to start one for this build, or use --engine local"
            ) from fault
        yield


def _start_here(room: RayRoom, folder: str | None) -> None:
    cores = len(os.sched_getaffinity(0))
    actors = room.actors or max(1, cores // room.cpus)
    if not any(name.startswith("RAY_AUTH_") for name in os.environ):
        # By itself Ray would write a token for everybody to read into the home directory, and use it from then on.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    ray.init(
        address=_LOCAL,
        # Of one's own machine one may ask for more actors than it has cores.
        num_cpus=max(cores, actors * room.cpus),
        num_gpus=0 if room.gpus == 0 else None,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=folder,
        _node_ip_address="127.0.0.1",
    )


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """
    ``ray.init`` sets a handler for SIGTERM, which nobody would take away again.
    """
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)


def _fitting(room: RayRoom) -> int:
    known = ray.nodes()  # type: ignore[no-untyped-call]  # it has no types
    nodes = [_free(node) for node in known if node.get("Alive")]
    fitting = sum(_held(node, room) for node in nodes)
    if fitting == 0:
        most = "; ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in nodes) or "none"
        raise CannotStart(
            f"no node of the Ray cluster holds an actor of {room.cpus} CPUs and {room.gpus:g} GPUs; its nodes have "
            f"{most}. Ask for less with --actor-cpus and --actor-gpus, or bring up a node that holds one"
        )
    return room.actors or fitting


def _free(node: Mapping[str, object]) -> tuple[float, float]:
    resources = node.get("Resources")
    has: Mapping[str, float] = resources if isinstance(resources, dict) else {}
    return has.get("CPU", 0.0), has.get("GPU", 0.0)


def _held(node: tuple[float, float], room: RayRoom) -> int:
    cpus, gpus = node
    by_cpus = int(cpus // room.cpus)
    return by_cpus if room.gpus == 0 else min(by_cpus, int(gpus // room.gpus))
