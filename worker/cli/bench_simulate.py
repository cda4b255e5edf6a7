"""
``touchstone bench simulate``: from one worker to many, on paper.
"""

import click

from worker.bench.fleet import Traffic, WorkerModel, simulated
from worker.bench.machine import machine
from worker.bench.measurement import Measured
from worker.bench.report import Report, tell

_WORKERS = "1,2,4,8,16,32"


@click.command("simulate")
@click.option("--fixed-ms", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Of each micro-batch.")
@click.option(
    "--picture-ms",
    type=click.FloatRange(min=0, min_open=True),
    required=True,
    help="Of each picture: 1000 / images_per_s of `touchstone bench e2e --json` on one worker.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="batch.size.")
@click.option("--workers", default=_WORKERS, show_default=True, help="Numbers of workers, one row each.")
@click.option("--partitions", type=click.IntRange(min=1), default=64, show_default=True, help="Of the upload topic.")
@click.option("--uploads", type=click.IntRange(min=1000), default=200_000, show_default=True, help="In each row.")
@click.option("--keys", type=click.IntRange(min=1), default=10_000, show_default=True, help="Uploaders.")
@click.option(
    "--skew",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="The n-th uploader sends in proportion to 1 / n ** skew; 0: all the same, 1: Zipf's law.",
)
@click.option("--burst", type=click.FloatRange(min=1), default=1.0, show_default=True, help="Bursts over quiet rate.")
@click.option(
    "--load", type=click.FloatRange(min=0, min_open=True), default=0.5, show_default=True, help="Share of the capacity."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def simulate(  # noqa: PLR0917 - one parameter for each option
    fixed_ms: float,
    picture_ms: float,
    batch_size: int,
    workers: str,
    partitions: int,
    uploads: int,
    keys: int,
    skew: float,
    burst: float,
    load: float,
    seed: int,
    as_json: bool,
) -> None:
    """
    How a fleet scales, computed from what one worker takes: arrivals, partitions, skew and micro-batches.

    Prints uploads per second for each number of workers, what share of linear that is, and latencies at a share of the
    capacity. A share well below 1 with few partitions for each worker, or with much skew, says where the limit is.
    """
    try:
        counts = [int(text) for text in workers.split(",")]
    except ValueError as error:
        raise click.BadParameter(
            f"found {workers!r}, expected numbers with commas, such as {_WORKERS}", param_hint="--workers"
        ) from error
    if min(counts) < 1:
        raise click.BadParameter(f"found {min(counts)} workers, expected at least 1", param_hint="--workers")
    model = WorkerModel(fixed_ms / 1000, picture_ms / 1000, batch_size)
    traffic = Traffic(uploads, partitions, keys=keys, skew=skew, burst=burst, seed=seed)
    rows = simulated(model, traffic, counts, load=load)
    figures: list[Measured] = []
    for row in rows:
        named = f"{row.workers} worker" + "s" * (row.workers > 1)
        figures += [
            Measured.of(f"{named}: rate", "uploads/s", [row.per_s]),
            Measured.of(f"{named}: share of linear", "1", [row.share_of_linear]),
            Measured.of(f"{named}: p50 at load {load:g}", "ms", [1000 * row.p50_s]),
            Measured.of(f"{named}: p99 at load {load:g}", "ms", [1000 * row.p99_s]),
        ]
    summary = {
        "partitions": partitions,
        "skew": skew,
        "burst": burst,
        "load": load,
        "capacity_of_one_per_s": model.capacity_per_s,
        "workers": [row.workers for row in rows],
        "per_s": [row.per_s for row in rows],
        "share_of_linear": [row.share_of_linear for row in rows],
        "busiest_share": [row.busiest_share for row in rows],
        "p50_ms": [1000 * row.p50_s for row in rows],
        "p99_ms": [1000 * row.p99_s for row in rows],
    }
    notes = ("computed, not measured: see worker/bench/fleet.py for what it leaves out",)
    tell(Report("a fleet, simulated", summary, figures, machine(), notes), as_json=as_json)
