"""
``touchstone bench latency``: how soon verdicts come at shares of a worker's capacity.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import click

from worker.cli.bench_options import bench_options, folder_of, kind_of
from worker.cli.progress_bars import Report as Told
from worker.cli.progress_bars import progress_bars

if TYPE_CHECKING:
    from worker.bench.latency import LatencyPlan
    from worker.bench.report import Report

PICTURES: Final = 32
"""Different pictures, which take turns in bytes of their own."""

WARM: Final = 32


@click.command()
@click.option("--picture", callback=kind_of, default="1mp", show_default=True, help="Size of the uploads.")
@click.option("--uploads", type=click.IntRange(20), default=300, show_default=True, help="Of each load and round.")
@click.option(
    "--burst", type=click.IntRange(20), default=192, show_default=True, help="Uploads that seek the capacity."
)
@click.option(
    "--load",
    "loads",
    type=click.FloatRange(0, 1, min_open=True),
    multiple=True,
    default=(0.5, 0.9),
    show_default=True,
    help="Share of the capacity. May be repeated.",
)
@click.option("--capacity", type=click.FloatRange(0, min_open=True), help="Uploads per second. Default: it is sought.")
@click.option("--references", type=click.IntRange(2), default=10_000, show_default=True, help="Size of the bank.")
@bench_options
def latency(
    sets: tuple[str, ...],
    work_folder: Path | None,
    *,
    picture: str,
    uploads: int,
    burst: int,
    loads: tuple[float, ...],
    capacity: float | None,
    references: int,
    rounds: int,
    as_json: bool,
) -> None:
    """
    Start a worker on real servers, find what it can do, and send uploads at shares of that: p50, p90 and p99.

    Uploads arrive at random whatever the worker does, and latencies count from the moment at which each was to be sent.
    The target is p99 at half of the capacity within the batch deadline and two full micro-batches' encoding; how it
    lies to the mean micro-batch of that load, which is smaller, is told beside. Uses the Kafka and Redis that
    KAFKA_BOOTSTRAP_SERVERS and REDIS_URL name, else its own.
    """
    from worker.bench.latency import LatencyPlan  # noqa: PLC0415 - what is measured stays out of --help
    from worker.bench.report import tell  # noqa: PLC0415 - likewise

    plan = LatencyPlan(uploads=uploads, burst=burst, rounds=rounds, loads=loads, capacity_per_s=capacity)
    with folder_of(work_folder) as folder, progress_bars(shown=not as_json) as progress:
        found = _measured(plan, sets, folder, picture=picture, references=references, report=progress)
    tell(found, as_json=as_json)


def _measured(
    plan: "LatencyPlan", sets: Sequence[str], folder: Path, *, picture: str, references: int, report: Told
) -> "Report":
    from worker.adapters.kafka_stress import KafkaPlatform  # noqa: PLC0415 - what is measured stays out of --help
    from worker.bench import live  # noqa: PLC0415 - likewise
    from worker.bench.corpus import KINDS, pictures  # noqa: PLC0415 - likewise
    from worker.bench.encoders import bench_encoder  # noqa: PLC0415 - likewise
    from worker.bench.latency import (  # noqa: PLC0415 - likewise
        TARGET_NOTE,
        LatencyBench,
        figures_of,
        summary_of,
        targets_of,
    )
    from worker.bench.machine import machine  # noqa: PLC0415 - likewise
    from worker.bench.report import Report  # noqa: PLC0415 - likewise
    from worker.bench.subjects import opened_subject  # noqa: PLC0415 - likewise
    from worker.bench.uploads import file_events  # noqa: PLC0415 - likewise

    root = folder / "pictures"
    (root / "warm").mkdir(parents=True, exist_ok=True)
    drawn = []
    for one in pictures(PICTURES, KINDS[picture]):
        drawn.append(one)
        report("pictures", len(drawn), PICTURES)
    warm = [f"warm/{number}.jpg" for number in range(WARM)]
    for name, data in zip(warm, drawn, strict=True):
        (root / name).write_bytes(data)
    with live.bench_servers(os.environ) as servers:
        places = [
            f"fetch.file_root={json.dumps(str(root))}",
            f"encoder.export_dir={json.dumps(str(folder / 'exports'))}",
        ]
        own = live.lane_sets(uuid4().hex[:8], "latency", servers, [*places, *sets])
        encoder = bench_encoder(live.settings_of(own).encoder, folder / "encoders")
        subject = opened_subject(own, encoder, references=references, folder=folder / "banks")
        subject.store.close()  # only the worker fetches here
        settings = live.settings_of(subject.sets)
        lane = live.Lane("latency", settings, servers, log_file=folder / "latency.log")
        with lane.running(live.worker_command(subject.sets)):
            lane.answered(file_events("warm", warm), patience_s=live.START_PATIENCE_S)
            with KafkaPlatform(settings.kafka) as platform:
                bench = LatencyBench(plan, platform, root=root, pictures=drawn, batch_size=settings.batch.size)
                rounds = bench.measured(report)
    deadline_ms = settings.batch.deadline_ms
    summary = summary_of(rounds, deadline_ms=deadline_ms, batch_size=settings.batch.size) | {
        "model": encoder.name,
        "backend": settings.encoder.backend,
        "precision": subject.instruments.encoder.fingerprint.precision,
        "picture": picture,
    }
    notes = [TARGET_NOTE]
    if not encoder.trained:
        notes.append("the weights are random: times are those of trained ones, verdicts mean nothing")
    figures = figures_of(rounds, deadline_ms)
    return Report("Latency by load", summary, figures, machine(), notes, targets_of(rounds, deadline_ms))
