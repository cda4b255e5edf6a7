"""
``touchstone bench stages``: what each stage costs per upload.
"""

from pathlib import Path

import click

from worker.cli.bench_options import bench_options, folder_of, kind_of
from worker.cli.progress_bars import progress_bars


@click.command()
@click.option(
    "--image-size",
    "kind",
    callback=kind_of,
    default="1mp",
    show_default=True,
    help="Size of the images, such as tiny, 20kb, 0.2mp, 1mp, 4mp or 12mp.",
)
@click.option(
    "--references", type=click.IntRange(2, 10_000_000), default=10_000, show_default=True, help="Size of the bank."
)
@click.option(
    "--servers/--no-servers",
    default=True,
    help="With the stages that ask Kafka, Redis and a web host. Default: --servers.",
)
@bench_options
def stages(
    sets: tuple[str, ...],
    work_folder: Path | None,
    *,
    kind: str,
    references: int,
    rounds: int,
    servers: bool,
    as_json: bool,
) -> None:
    """
    CPU and wall-clock milliseconds per upload of every stage, each alone, through the worker's own functions.

    Everything has one thread here, so that CPU time is the work's own. Preprocessing is a part of decoding, and hashing
    of fetching. Uses the servers that KAFKA_BOOTSTRAP_SERVERS and REDIS_URL name, else brings its own.
    """
    from worker.bench.report import tell  # noqa: PLC0415 - rich; --help needs none
    from worker.bench.stages_run import StagesPlan, run_stages  # noqa: PLC0415 - torch takes seconds to import

    plan = StagesPlan(kind, references, rounds, servers=servers)
    with folder_of(work_folder) as folder, progress_bars(shown=not as_json) as progress:
        report = run_stages(plan, sets, folder=folder, progress=progress)
    tell(report, as_json=as_json)
