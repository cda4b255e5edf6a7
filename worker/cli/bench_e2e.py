"""
``touchstone bench e2e``: uploads per second through real servers, beside the naive loop.
"""

from dataclasses import replace
from pathlib import Path

import click

from worker.cli.bench_options import bench_options, folder_of
from worker.cli.progress_bars import progress_bars


@click.command()
@click.option(
    "--uploads",
    type=click.IntRange(24, 1_000_000),
    default=384,
    show_default=True,
    help="New images of 1 MP in one round of the worker; the naive loops, being slower, are given fewer.",
)
@click.option(
    "--cached-uploads",
    type=click.IntRange(24, 10_000_000),
    default=12_000,
    show_default=True,
    help="Uploads of known bytes in one round.",
)
@click.option(
    "--references", type=click.IntRange(2, 10_000_000), default=10_000, show_default=True, help="Size of the bank."
)
@click.option("--naive/--no-naive", default=True, help="With the loop that one would write first. Default: --naive.")
@click.option("--batched/--no-batched", default=True, help="With the same loop in batches. Default: --batched.")
@click.option(
    "--peer-python",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The interpreter of an environment with clip-retrieval installed: it embeds the same pictures beside.",
)
@bench_options
def e2e(
    sets: tuple[str, ...],
    work_folder: Path | None,
    *,
    uploads: int,
    cached_uploads: int,
    references: int,
    rounds: int,
    naive: bool,
    batched: bool,
    peer_python: Path | None,
    as_json: bool,
) -> None:
    """
    The worker, the loop that one would write first, and the same batched, in turns on real Kafka and Redis.

    Uses the servers that KAFKA_BOOTSTRAP_SERVERS and REDIS_URL name, else brings its own. Fails, with no rate told,
    where any upload is lost, answered twice or not judged.
    """
    from worker.bench.e2e import E2ePlan, run_e2e  # noqa: PLC0415 - torch takes seconds to import; --help must not
    from worker.bench.report import tell  # noqa: PLC0415 - rich; likewise

    loops = [name for name, asked in (("naive", naive), ("batched", batched)) if asked]
    plan = E2ePlan.of(uploads, cached_uploads, references=references, rounds=rounds, loops=loops)
    plan = replace(plan, peer_python=peer_python)
    with folder_of(work_folder) as folder, progress_bars(shown=not as_json) as progress:
        report = run_e2e(plan, sets, folder=folder, progress=progress)
    tell(report, as_json=as_json)
