"""
What is asked of a Ray cluster, as plain values: Ray itself is imported in ``worker.adapters.ray_cluster``.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RayRoom:
    """
    Where actors run, how many, and what each of them holds of its node: so many CPUs, and a share of the GPUs.

    Without ``actors``, as many as find room. ``address`` is that of a cluster; without it, what the variable
    RAY_ADDRESS says, and without that a cluster is started on this machine.
    """

    actors: int | None = None
    cpus: int = 1
    gpus: float = 0.0
    address: str | None = None
