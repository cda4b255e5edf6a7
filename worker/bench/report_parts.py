"""
What ``touchstone bench report`` runs, with which numbers, and which of the figures it tells: one row for each.

How the parts are run and written down is in ``full_report.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

UPLOADS: Final = 1280
"""Of a round: more than twice ``flow.max_in_flight``, so that there is a part in which the worker is full."""

GPU_UPLOADS: Final = 6000
CPU_PARTS: Final = ("e2e", "e2e-fast", "latency", "startup", "scaling", "cache", "bank")
GPU_PARTS: Final = ("encode", "encode-large", "e2e", "latency", "startup")


@dataclass(frozen=True, slots=True)
class Row:
    """
    One figure: what it is called, its unit, and where it stands in the object that the benchmark prints.

    ``target`` is the name of the target that it is held against, where that is not its last key.
    """

    label: str
    unit: str
    path: tuple[str, ...]
    target: str | None = None

    @property
    def held_against(self) -> str:
        """
        The name of the target that says what it was to be, should there be one.
        """
        return self.target or self.path[-1]


@dataclass(frozen=True, slots=True)
class Part:
    """
    One benchmark: ``of`` says in words what is measured, ``words`` follow ``touchstone bench``.
    """

    name: str
    of: str
    words: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What the caller wants: the model, settings for every part, rounds, and the peer's interpreter where there is one.

    ``precision`` is torch's on this machine; ``fast`` the backend and precision beside it, None where none is at hand.
    """

    model: str
    sets: Sequence[str] = ()
    rounds: int = 3
    precision: str | None = None
    fast: tuple[str, str] | None = None
    peer_python: Path | None = None


E2E_ROWS: Final = (
    Row("uploads per second, whole rounds", "1/s", ("images_per_s",)),
    Row("uploads per second while the worker is full", "1/s", ("steady_images_per_s",)),
    Row("the loop that one would write first", "1/s", ("naive_images_per_s",)),
    Row("times that loop", "x", ("ratio_to_naive",)),
    Row("times that loop, by CPU time", "x", ("ratio_to_naive_by_cpu",)),
    Row("times the peer", "x", ("ratio_to_peer",)),
    Row("share of the roofline, whole rounds", "1", ("roofline_fraction",)),
    Row("share of the roofline while the worker is full", "1", ("roofline_fraction_steady",)),
    Row("share of the roofline, by CPU time", "1", ("roofline_fraction_by_cpu",)),
    Row("share of the roofline with hash and credentials", "1", ("roofline_fraction_with_facts",)),
    Row("share of the cores that nobody used", "1", ("cores_idle",)),
    Row("overhead per upload", "ms CPU", ("overhead_ms_per_upload",)),
    Row("uploads of bytes that Redis knows", "1/s", ("cached_per_s",)),
    Row("uploads of bytes that the worker remembers", "1/s", ("recent_per_s",)),
    Row("resident memory after all", "MiB", ("memory_mib",)),
    Row("growth of private memory per 100,000 uploads", "MiB", ("memory_growth_mib_per_100k",)),
)
LATENCY_ROWS: Final = (
    Row("capacity", "1/s", ("capacity_per_s",)),
    Row("p50 at 50 % load", "ms", ("loads", "0.5", "p50_ms")),
    Row("p99 at 50 % load", "ms", ("loads", "0.5", "p99_ms")),
    Row("p99 at 50 % load of its target", "x", ("loads", "0.5", "p99_of_target"), "p99_of_target at 50% load"),
)
LOADED_ROW: Final = Row("p99 at 90 % load", "ms", ("loads", "0.9", "p99_ms"))
STARTUP_ROWS: Final = (
    Row("ready after", "s", ("ready_s",)),
    Row("resident memory", "MiB", ("memory_mib",)),
    Row("private memory", "MiB", ("memory_private_mib",)),
)
ENCODE_ROWS: Final = (
    Row("images per second, encoding alone", "1/s", ("bf16_images_per_s",)),
    Row("best batch", "images", ("bf16_best_batch",)),
    Row("rate of operations", "TFLOP/s", ("bf16_tflops",)),
    Row("rate of matrix products", "TFLOP/s", ("bf16_matmul_tflops",)),
    Row("share of the matrix products' rate", "1", ("bf16_matmul_share",), "matmul_share, bf16"),
)


def cpu_parts(asked: Asked) -> dict[str, Part]:
    """
    The parts of a report on a machine that encodes with its cores, by name; without those that cannot run here.
    """
    rounds = ("--rounds", str(asked.rounds))
    torch = _words(asked, ("--precision", asked.precision) if asked.precision else ())
    e2e = ("e2e", "--uploads", str(UPLOADS), "--cached-uploads", "6000", "--no-batched", *rounds)
    peer = () if asked.peer_python is None else ("--peer-python", str(asked.peer_python))
    named = f"{asked.model}, torch, {asked.precision or 'as configured'}"
    parts = [
        Part("e2e", named, (*e2e, *peer, *torch), E2E_ROWS),
        Part(
            "latency",
            f"{named}, batches of 8",
            ("latency", *rounds, "--set", "batch.size=8", *torch),
            (*LATENCY_ROWS, LOADED_ROW),
        ),
        Part(
            "startup",
            f"{named}, 100,000 references",
            ("startup", "--uploads", "100", "--rounds", "2", *torch),
            STARTUP_ROWS,
        ),
        Part("scaling", f"{named}, a core for each worker", ("scaling", *rounds, *torch), ()),
        Part("cache", named, ("cache", *rounds, *torch), _cache_rows()),
        Part("bank", named, ("bank", "--sizes", "10000,100000", *torch), _bank_rows()),
        Part("sweep", named, ("sweep", "--rounds", "2", *torch), ()),
    ]
    if asked.fast is not None:
        backend, precision = asked.fast
        words = (*e2e, *_words(asked, ("--backend", backend, "--precision", precision)))
        parts.insert(1, Part("e2e-fast", f"{asked.model}, {backend}, {precision}", words, E2E_ROWS))
    return {part.name: part for part in parts}


def gpu_parts(asked: Asked) -> dict[str, Part]:
    """
    The parts of a report on a machine that encodes with a GPU, by name.
    """
    rounds = ("--rounds", str(asked.rounds))
    on_gpu = ("--set", 'encoder.device="cuda"')
    torch = (*_words(asked, ("--precision", "bf16")), *on_gpu)
    sizes = ("encode", "--device", "cuda", "--precisions", "bf16", "--sizes", "8,32,64,128,256", *rounds)
    large = Asked("ViT-L-14", asked.sets)
    e2e = ("e2e", "--uploads", str(GPU_UPLOADS), "--cached-uploads", "12000", "--no-batched", *rounds)
    peer = () if asked.peer_python is None else ("--peer-python", str(asked.peer_python))
    named = f"{asked.model}, GPU, bf16"
    latency = ("latency", "--burst", "2000", "--uploads", "2000", "--load", "0.5", *rounds)
    parts = [
        Part("encode", named, (*sizes, *_words(asked)), ENCODE_ROWS),
        Part("encode-large", "ViT-L-14, GPU, bf16", (*sizes, *_words(large)), ENCODE_ROWS),
        Part("e2e", named, (*e2e, *peer, *torch), E2E_ROWS),
        Part("latency", named, (*latency, *torch), LATENCY_ROWS),
        Part(
            "startup",
            f"{named}, 100,000 references",
            ("startup", "--uploads", "400", "--rounds", "2", *torch),
            STARTUP_ROWS,
        ),
    ]
    return {part.name: part for part in parts}


def rows_of(part: Part, told: Mapping[str, object]) -> list[Row]:
    """
    The rows of a part: those that it names, and of sweeps one for each value that the object tells.
    """
    rows = list(part.rows)
    for key, label, unit in _SWEPT.get(part.words[0], ()):
        rows += [Row(f"{label} {name}", unit, ("figures", name, "median")) for name in _figures_with(told, key)]
    return rows


_SWEPT: Final[Mapping[str, Sequence[tuple[str, str, str]]]] = {
    "scaling": ((": rate", "uploads per second,", "1/s"), (": share of linear", "scaling,", "1")),
    "sweep": ((": rate", "uploads per second,", "1/s"), (": cpu", "CPU per upload,", "ms")),
}


def _figures_with(told: Mapping[str, object], ending: str) -> list[str]:
    figures = told.get("figures")
    return [name for name in figures if name.endswith(ending)] if isinstance(figures, dict) else []


def _cache_rows() -> tuple[Row, ...]:
    return tuple(
        Row(f"gain with {share} of known bytes", "x", ("gain", key))
        for share, key in (("50 %", "0.5"), ("95 %", "0.95"))
    )


def _bank_rows() -> tuple[Row, ...]:
    return tuple(
        Row(
            f"search beside encoding, {size:,} references",
            "1",
            (f"search_share_of_encode_{size}",),
            f"search_share_of_encode, {size:,} references",
        )
        for size in (10_000, 100_000)
    )


def _words(asked: Asked, more: Sequence[str] = ()) -> tuple[str, ...]:
    sets = [word for one in asked.sets for word in ("--set", one)]
    return ("--model", asked.model, *more, *sets)
