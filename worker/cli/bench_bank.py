"""
``touchstone bench bank``: what searching costs by the size of the bank, beside encoding.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from worker.cli.bench_options import bench_options, folder_of
from worker.cli.progress_bars import progress_bars
from worker.settings.load import load_settings

if TYPE_CHECKING:
    from worker.bench.bank_size import BankCost, IndexCost
    from worker.bench.measurement import Measured

_MEGABYTE = 1e6
_TOLD_DIM = 768


def _sizes(_context: click.Context, _option: click.Parameter, given: str) -> tuple[int, ...]:
    try:
        found = tuple(int(one) for one in given.split(","))
    except ValueError:
        raise click.BadParameter(f"{given!r} is no list of numbers such as 10000,100000") from None
    if min(found) < 1_000:  # noqa: PLR2004 - below, a search costs what Python costs
        raise click.BadParameter(f"{min(found)} is below 1000 references")
    return found


@click.command("bank")
@click.option("--sizes", callback=_sizes, default="10000,100000,1000000", show_default=True, help="References.")
@click.option(
    "--dim", type=click.IntRange(16, 4096), help="Of the embeddings. Default: the encoder's; told its time, 768."
)
@click.option("--encode-ms", type=float, help="CPU milliseconds of encoding 32 pictures. Default: measured beside.")
@bench_options
def bank(  # noqa: PLR0917 - one parameter for each option
    sizes: tuple[int, ...],
    dim: int | None,
    encode_ms: float | None,
    sets: tuple[str, ...],
    rounds: int,
    work_folder: Path | None,
    as_json: bool,
) -> None:
    """
    CPU milliseconds per micro-batch and the share of encoding it, recall and equal votes, memory and load time.

    "exact" compares every reference, "cells" is the index of `touchstone bank index`, made from 100,000 references on.
    A million references of 768 dimensions take 6 GB of memory and some minutes.
    """
    from worker.bench.bank_size import bank_cost  # noqa: PLC0415 - what is measured stays out of `touchstone --help`
    from worker.bench.machine import machine  # noqa: PLC0415 - likewise
    from worker.bench.report import Report, tell  # noqa: PLC0415 - likewise

    with folder_of(work_folder) as folder, progress_bars(shown=not as_json) as progress:
        told = _Encoding(encode_ms, "as told", _TOLD_DIM) if encode_ms is not None else _encoding(sets, folder)
        width = dim or told.dim
        found = [bank_cost(size, width, encode=told.encode, rounds=rounds, tell=progress) for size in sizes]
    summary: dict[str, object] = {"dim": width, "encoder": told.name, "banks": [_as_object(one) for one in found]}
    for one in found:
        summary[f"search_share_of_encode_{one.entries}"] = round(one.share(one.chosen), 4)
        summary[f"within_target_{one.entries}"] = one.within_target
    notes = [
        "vectors are drawn from a seed: clustered, of falling spectrum, a tenth of them near copies",
        "shares are of CPU time, at micro-batches of 32",
        *(note for one in found for note in _told(one)),
    ]
    targets = [target for one in found for target in one.targets]
    tell(Report("Searching, by size of the bank", summary, _figures(found), machine(), notes, targets), as_json=as_json)


class _Encoding(NamedTuple):
    """
    What encodes a micro-batch, or the CPU milliseconds of that, its name, and the dimensions of its embeddings.
    """

    encode: Callable[[], Any] | float
    name: str
    dim: int


def _encoding(sets: Sequence[str], folder: Path) -> _Encoding:
    import numpy as np  # noqa: PLC0415 - only where something is measured

    from worker.bench.bank_size import OF_SHARE  # noqa: PLC0415 - likewise
    from worker.bench.encoders import bench_encoder  # noqa: PLC0415 - likewise
    from worker.encoders import load_encoder  # noqa: PLC0415 - likewise
    from worker.telemetry.metrics import InMemoryRecorder  # noqa: PLC0415 - likewise

    asked = load_settings(config=None, overlay=None, environ={}, sets=list(sets)).settings.encoder
    made = bench_encoder(asked, folder)
    named = [one for one in sets if not one.startswith("encoder.model=")]
    settings = load_settings(config=None, overlay=None, environ={}, sets=[*named, *made.sets()]).settings.encoder
    encoder = load_encoder(settings, InMemoryRecorder())
    size = encoder.fingerprint.preprocess.size
    pictures = np.random.default_rng(7).integers(0, 256, size=(OF_SHARE, size, size, 3), dtype=np.uint8)
    name = f"{made.name}, {settings.backend}, {encoder.fingerprint.precision}"
    return _Encoding(lambda: encoder.encode(list(pictures)), name, encoder.fingerprint.dim)


def _figures(found: "Sequence[BankCost]") -> "list[Measured]":
    from worker.bench.measurement import Measured  # noqa: PLC0415 - only where something is measured

    figures: list[Measured] = []
    for one in found:
        for index in one.indexes:
            figures += [*index.cpu_ms.values(), *index.wall_ms.values()]
        figures.append(Measured.of(f"{one.entries} encode, micro-batch 32", "ms CPU", [one.encode_cpu_ms]))
    return figures


def _as_object(cost: "BankCost") -> dict[str, object]:
    return {
        "entries": cost.entries,
        "encode_cpu_ms": round(cost.encode_cpu_ms, 3),
        "chosen": cost.chosen.name,
        "within_target": cost.within_target,
        "indexes": [_index_object(cost, index) for index in cost.indexes],
    }


def _index_object(cost: "BankCost", index: "IndexCost") -> dict[str, object]:
    quality = index.quality
    return {
        "name": index.name,
        "identity": index.identity,
        "cpu_ms": {str(batch): round(figure.median, 3) for batch, figure in index.cpu_ms.items()},
        "wall_ms": {str(batch): round(figure.median, 3) for batch, figure in index.wall_ms.items()},
        "strangers_cpu_ms": round(index.strangers_cpu_ms.median, 3),
        "share_of_encode": round(cost.share(index), 4),
        "share_of_encode_strangers": round(cost.share_for_strangers(index), 4),
        "recall": 1.0 if quality is None else round(quality.recall, 5),
        "equal_votes": 1.0 if quality is None else round(quality.agreement, 5),
        "queries": None if quality is None else quality.queries,
        "depth": None if quality is None else quality.depth,
        "load_cpu_s": round(index.load_cpu_s, 2),
        "build_cpu_s": round(index.build_cpu_s, 1),
        "memory_bytes": index.memory_bytes,
    }


def _told(cost: "BankCost") -> list[str]:
    lines = []
    for index in cost.indexes:
        quality = index.quality
        found = (
            "exact"
            if quality is None
            else f"recall@{quality.depth} {quality.recall:.4f}, decisions {quality.agreement:.4f} "
            f"of {quality.queries:,} queries"
        )
        share, strange = cost.share(index), cost.share_for_strangers(index)
        lines.append(
            f"{cost.entries:,} {index.name}: {share:.1%} of encoding ({strange:.1%} unlike the bank), {found}, "
            f"{index.memory_bytes / _MEGABYTE:,.0f} MB, loaded in {index.load_cpu_s:.1f} s of CPU, made in "
            f"{index.build_cpu_s:.0f} s"
        )
    return lines
