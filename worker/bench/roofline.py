"""
The arithmetic of the roofline: how fast these cores could be at best, and how much of a worker's time is its own.

Pure numbers. What a stage costs is measured in ``stages.py``.
"""

from collections.abc import Mapping


def roofline_per_s(costs_s: Mapping[str, float], cores: int, *, device_s: float | None = None) -> float:
    """
    Uploads per second if the cores did nothing but these stages, each at the best cost measured for it.

    ``costs_s`` in CPU seconds of one core per upload, of the stages that share the cores. Where the encoder has a
    device of its own it is not among them, and ``device_s`` is its time for an upload: the slower of the two is the
    limit. Raises ``ValueError`` where the costs are not above 0.
    """
    together_s = sum(costs_s.values())
    if together_s <= 0:
        raise ValueError(f"the stages cost {together_s} s together, expected more than 0")
    return cores / together_s if device_s is None else min(cores / together_s, 1 / device_s)


def roofline_fraction(
    images_per_s: float, costs_s: Mapping[str, float], cores: int, *, device_s: float | None = None
) -> float:
    """
    The measured rate as a share of ``roofline_per_s``.
    """
    return images_per_s / roofline_per_s(costs_s, cores, device_s=device_s)


def overhead_ms(cpu_s_per_upload: float, costs_s: Mapping[str, float]) -> float:
    """
    What an upload costs a worker beside these stages, in CPU milliseconds; below 0 where the measurement is that noisy.
    """
    return (cpu_s_per_upload - sum(costs_s.values())) * 1000
