"""
``touchstone bench encode``: what encoding costs by precision and batch size.
"""

from pathlib import Path

import click

from worker.cli.bench_options import bench_options, folder_of, numbers_of
from worker.cli.progress_bars import progress_bars


def _precisions(_context: click.Context, _option: click.Parameter, given: str | None) -> tuple[str, ...] | None:
    known = ("fp32", "bf16", "fp16", "int8")
    found = None if given is None else tuple(given.split(","))
    if found is not None and (not set(found) <= set(known) or len(set(found)) < len(found)):
        raise click.BadParameter(f"{given!r}: want different ones of {', '.join(known)}")
    return found


@click.command("encode")
@click.option("--device", default="auto", show_default=True, help="As encoder.device: auto, cpu, cuda or cuda:N.")
@click.option(
    "--sizes", callback=numbers_of, default="1,2,4,8,16,32,64", show_default=True, help="Pictures in a batch."
)
@click.option("--precisions", callback=_precisions, help="Default: fp32,bf16 on a CPU, bf16 on a GPU.")
@click.option("--seconds", type=click.FloatRange(0.01, 60), default=0.5, show_default=True, help="Of each turn.")
@bench_options
def encode(  # noqa: PLR0917 - one parameter for each option
    device: str,
    sizes: tuple[int, ...],
    precisions: tuple[str, ...] | None,
    seconds: float,
    sets: tuple[str, ...],
    rounds: int,
    work_folder: Path | None,
    as_json: bool,
) -> None:
    """
    Images per second through the worker's encoder, and the share of this device's rate of matrix products.

    All precisions and batch sizes take turns. --precisions wins over --precision.
    """
    from worker.adapters.clip_device import on_gpu  # noqa: PLC0415 - torch takes seconds to import; --help must not
    from worker.bench.encode import EncodePlan, run_encode  # noqa: PLC0415 - likewise
    from worker.bench.report import tell  # noqa: PLC0415 - likewise

    asked = [one.partition("=")[2].strip('"') for one in sets if one.startswith("encoder.precision=")]
    chosen = precisions or tuple(asked[-1:]) or (("bf16",) if on_gpu(device) else ("fp32", "bf16"))
    plan = EncodePlan(chosen, sizes, rounds, seconds)
    with folder_of(work_folder) as folder, progress_bars(shown=not as_json) as progress:
        report = run_encode(plan, [*sets, f'encoder.device="{device}"'], folder=folder, progress=progress)
    tell(report, as_json=as_json)
