"""
``touchstone bench cache``: what known bytes among the uploads bring.
"""

from pathlib import Path

import click

from worker.cli.bench_options import bench_options, folder_of
from worker.cli.progress_bars import progress_bars


@click.command()
@click.option("--shares", default="0,0.5,0.95", show_default=True, help="Of uploads whose bytes were seen before.")
@click.option(
    "--new-uploads", type=click.IntRange(24, 1_000_000), default=96, show_default=True, help="New images of a round."
)
@click.option(
    "--references", type=click.IntRange(2, 10_000_000), default=10_000, show_default=True, help="Size of the bank."
)
@bench_options
def cache(
    sets: tuple[str, ...],
    work_folder: Path | None,
    *,
    shares: str,
    new_uploads: int,
    references: int,
    rounds: int,
    as_json: bool,
) -> None:
    """
    Uploads per second at several shares of known bytes, in turns through one worker on real Kafka and Redis.
    """
    from worker.bench.cache_share import CachePlan, run_cache_share  # noqa: PLC0415 - torch takes seconds to import
    from worker.bench.report import tell  # noqa: PLC0415 - rich; --help must not wait for it

    try:
        named = tuple(float(text) for text in shares.split(","))
        plan = CachePlan(named, new_uploads, references=references, rounds=rounds)
    except ValueError as error:
        raise click.UsageError(f"--shares {shares}: {error}") from error
    with folder_of(work_folder) as folder, progress_bars(shown=not as_json) as progress:
        report = run_cache_share(plan, sets, folder=folder, progress=progress)
    tell(report, as_json=as_json)
