"""
``touchstone bench scaling``: one worker and several, on this machine.
"""

from pathlib import Path

import click

from worker.cli.bench_options import bench_options, folder_of
from worker.cli.progress_bars import progress_bars


@click.command()
@click.option("--workers", default="1,2", show_default=True, help="Teams of so many workers; each has a core for each.")
@click.option("--partitions", type=click.IntRange(1, 1024), default=8, show_default=True, help="Of each upload topic.")
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
    workers: str,
    partitions: int,
    uploads: int,
    references: int,
    rounds: int,
    as_json: bool,
) -> None:
    """
    How many uploads one worker answers, and how many several do that share a group and its partitions.

    Each worker is held to a core of its own. Prints the rate of each team and what share of linear it is.
    """
    from worker.bench.report import tell  # noqa: PLC0415 - rich; --help must not wait for it
    from worker.bench.scaling import ScalingPlan, run_scaling  # noqa: PLC0415 - torch takes seconds to import

    try:
        teams = tuple(int(text) for text in workers.split(","))
        plan = ScalingPlan(teams, partitions, uploads=uploads, references=references, rounds=rounds)
    except ValueError as error:
        raise click.UsageError(f"--workers {workers}: {error}") from error
    with folder_of(work_folder) as folder, progress_bars(shown=not as_json) as progress:
        report = run_scaling(plan, sets, folder=folder, progress=progress)
    tell(report, as_json=as_json)
