"""
``touchstone bench size``: from uploads per second to workers, partitions and Redis memory.
"""

import json

import click
from rich.console import Console
from rich.table import Table

from worker.bench.sizing import Demand, Deployment, kept_bytes, sized

_SHARE = click.FloatRange(min=0, max=1, max_open=True)
_GIB = 1024**3


@click.command("size")
@click.option("--peak-per-s", type=float, required=True, help="Uploads per second at the peak.")
@click.option("--mean-per-s", type=float, help="In the mean, which fills Redis; without it, as at the peak.")
@click.option("--new-per-s", type=float, required=True, help="images_per_s of `touchstone bench e2e` on one worker.")
@click.option("--known-per-s", type=float, required=True, help="cached_per_s of the same run.")
@click.option("--known", type=_SHARE, default=0.0, show_default=True, help="Share of uploads whose bytes were seen.")
@click.option("--kept-days", type=float, default=30.0, show_default=True, help="redis.ttl_s, in days.")
@click.option("--dim", type=int, default=768, show_default=True, help="Of the embeddings.")
@click.option("--native-crops", type=int, default=0, show_default=True, help="Of the bank's views.")
@click.option("--utilisation", type=float, default=0.7, show_default=True, help="Of a worker, at the peak.")
@click.option("--hottest-share", type=_SHARE, default=0.0, show_default=True, help="Of uploads, in one partition.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def size(  # noqa: PLR0917 - one parameter for each option
    peak_per_s: float,
    mean_per_s: float | None,
    new_per_s: float,
    known_per_s: float,
    known: float,
    kept_days: float,
    dim: int,
    native_crops: int,
    utilisation: float,
    hottest_share: float,
    as_json: bool,
) -> None:
    """
    How many workers, partitions and bytes of Redis memory a platform's uploads take.
    """
    mean = peak_per_s if mean_per_s is None else mean_per_s
    try:
        demand = Demand(
            peak_per_s=peak_per_s,
            mean_per_s=mean,
            known=known,
            kept_s=kept_days * 24 * 3600,
            dim=dim,
            native_crops=native_crops,
            utilisation=utilisation,
            hottest_share=hottest_share,
        )
        found = sized(demand, new_per_s=new_per_s, known_per_s=known_per_s)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(_as_object(demand, found), indent=2))
    else:
        _print(demand, found)


def _as_object(demand: Demand, found: Deployment) -> dict[str, object]:
    return {
        "workers": found.workers,
        "partitions": found.partitions,
        "hottest_partition_per_s": found.hottest_per_s,
        "hottest_partition_fits": found.fits,
        "redis_bytes": found.redis_bytes,
        "redis_bytes_per_content": kept_bytes(demand.dim, demand.native_crops),
    }


def _print(demand: Demand, found: Deployment) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_row("workers, one device each", str(found.workers))
    table.add_row("partitions of the upload topic", str(found.partitions))
    table.add_row("uploads per second in the busiest partition", f"{found.hottest_per_s:,.1f}")
    each = kept_bytes(demand.dim, demand.native_crops)
    table.add_row("Redis memory", f"{found.redis_bytes / _GIB:,.1f} GiB ({each:,} bytes for each picture kept)")
    Console().print(table)
    if not found.fits:
        click.echo(
            "One worker cannot bear the busiest partition, and a partition cannot be shared: key the uploads by "
            "something that spreads better, such as the uploader instead of the surface.",
            err=True,
        )
