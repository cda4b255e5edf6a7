"""
``touchstone bench startup``: time to ready, by phase, and memory.
"""

from pathlib import Path

import click

from worker.cli.bench_options import bench_options, folder_of
from worker.cli.progress_bars import progress_bars


@click.command()
@click.option(
    "--references",
    type=click.IntRange(2, 10_000_000),
    default=100_000,
    show_default=True,
    help="Size of the bank, where none is set.",
)
@click.option(
    "--uploads",
    type=click.IntRange(0, 1_000_000),
    default=400,
    show_default=True,
    help="New images of 1 MP after each start: memory is looked at before, halfway and at the end.",
)
@bench_options
def startup(
    sets: tuple[str, ...], work_folder: Path | None, *, references: int, uploads: int, rounds: int, as_json: bool
) -> None:
    """
    Start `touchstone run` on real Kafka and Redis, once more than there are rounds: the first start warms the cache.

    Uses the servers that KAFKA_BOOTSTRAP_SERVERS and REDIS_URL name, else brings its own. Phases overlap and do not add
    up; memory is that of the worker and its decoders, pages that they share counted in each.
    """
    from worker.bench.report import tell  # noqa: PLC0415 - rich; --help must not wait for it
    from worker.bench.startup import StartupPlan, run_startup  # noqa: PLC0415 - torch takes seconds to import; likewise

    plan = StartupPlan(references, rounds, uploads)
    with folder_of(work_folder) as folder, progress_bars(shown=not as_json) as progress:
        report = run_startup(plan, sets, folder=folder, progress=progress)
    tell(report, as_json=as_json)
