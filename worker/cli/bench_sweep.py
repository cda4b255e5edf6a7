"""
``touchstone bench sweep``: the whole worker by size of micro-batch and by size of image.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.bench_options import bench_options, folder_of, kinds_of, numbers_of
from worker.cli.progress_bars import progress_bars

if TYPE_CHECKING:
    from worker.bench.report import Report


@click.command()
@click.option(
    "--batch-sizes", callback=numbers_of, default="8,16,32", show_default=True, help="batch.size, a worker for each."
)
@click.option(
    "--image-sizes",
    callback=kinds_of,
    default="0.2mp,1mp,4mp,12mp",
    show_default=True,
    help="Of the uploads, in micro-batches as configured.",
)
@click.option(
    "--uploads",
    type=click.IntRange(48, 1_000_000),
    default=192,
    show_default=True,
    help="New images of one round; of images above 1 MP as many fewer, but at least 48.",
)
@click.option(
    "--references", type=click.IntRange(2, 10_000_000), default=10_000, show_default=True, help="Size of the bank."
)
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw both sweeps into this file, as SVG."
)
@bench_options
def sweep(
    sets: tuple[str, ...],
    work_folder: Path | None,
    *,
    batch_sizes: tuple[int, ...],
    image_sizes: tuple[str, ...],
    uploads: int,
    references: int,
    rounds: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """
    Uploads per second and CPU per upload through a whole worker on real Kafka and Redis, by two sizes.

    All workers are up at once and take turns: with the defaults three, each of more than 1 GB.
    """
    from worker.bench.report import tell  # noqa: PLC0415 - rich; --help must not wait for it
    from worker.bench.sweep import SweepPlan, run_sweep  # noqa: PLC0415 - torch takes seconds to import; likewise

    plan = SweepPlan(batch_sizes, image_sizes, uploads=uploads, references=references, rounds=rounds)
    with folder_of(work_folder) as folder, progress_bars(shown=not as_json) as progress:
        report = run_sweep(plan, sets, folder=folder, progress=progress)
    if plot is not None:
        plot.write_text(_drawn(report), encoding="utf-8")
    tell(report, as_json=as_json)


def _drawn(report: "Report") -> str:
    from worker.bench.plots import Bar, Panel, rates_svg  # noqa: PLC0415 - matplotlib is for those who want a picture

    def panel(changed: str, key: str, values: Any) -> Panel:  # noqa: ANN401 - of a summary, which is an object of JSON
        return Panel(
            changed,
            [
                Bar(one[key], one["images_per_s"], one["lowest_per_s"], one["highest_per_s"], one["cpu_ms_per_upload"])
                for one in values
            ],
        )

    told = report.summary
    title = f"{told['model']}, {told['backend']}, {told['precision']}, {told['cores']} cores"
    return rates_svg(
        title,
        [
            panel("size of micro-batch", "batch_size", told["batch_sizes"]),
            panel("size of image, megapixels", "megapixels", told["image_sizes"]),
        ],
    )
