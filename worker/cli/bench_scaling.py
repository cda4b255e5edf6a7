"""
``touchstone bench scaling``: one worker and several, each with a core of its own, over few partitions and many.
"""

from pathlib import Path

import click

from worker.cli.bench_options import bench_options, folder_of, numbers_of
from worker.cli.progress_bars import progress_bars


@click.command()
@click.option(
    "--workers", callback=numbers_of, default="1,2", show_default=True, help="Of a team; each worker has its own core."
)
@click.option(
    "--partitions-per-worker",
    callback=numbers_of,
    default="1,4",
    show_default=True,
    help="Of the upload topic; every team is tried with each of these.",
)
@click.option(
    "--uploads", type=click.IntRange(24, 1_000_000), default=96, show_default=True, help="Per worker and round, 1 MP."
)
@click.option(
    "--references", type=click.IntRange(2, 10_000_000), default=10_000, show_default=True, help="Size of the bank."
)
@bench_options
def scaling(
    sets: tuple[str, ...],
    work_folder: Path | None,
    *,
    workers: tuple[int, ...],
    partitions_per_worker: tuple[int, ...],
    uploads: int,
    references: int,
    rounds: int,
    as_json: bool,
) -> None:
    """
    How many uploads one worker answers, and how many several do that share a group and its partitions.

    Each worker is held to a core of its own. Prints the rate of each team and what share of linear it is. All workers
    of all teams are up at once: with the defaults six, each of more than 1 GB.
    """
    from worker.bench.report import tell  # noqa: PLC0415 - rich; --help must not wait for it
    from worker.bench.scaling import ScalingPlan, run_scaling  # noqa: PLC0415 - torch takes seconds to import

    try:
        plan = ScalingPlan(workers, partitions_per_worker, uploads=uploads, references=references, rounds=rounds)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with folder_of(work_folder) as folder, progress_bars(shown=not as_json) as progress:
        report = run_scaling(plan, sets, folder=folder, progress=progress)
    tell(report, as_json=as_json)
