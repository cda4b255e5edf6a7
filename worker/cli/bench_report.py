"""
``touchstone bench report``: what a README would quote of this machine, from one command.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker.cli.bench_options import DEFAULT_MODEL, folder_of
from worker.cli.progress_bars import progress_bars
from worker.errors import EXIT_FOUND, EXIT_OK

if TYPE_CHECKING:
    from worker.bench.report_parts import Asked, Part

_FAST = (("openvino", "int8"), ("onnxruntime", "int8"))
_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


@click.command("report")
@click.option(
    "--out",
    "files",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    help="Write it there: Markdown, or JSON where the name ends with .json. May be repeated.",
)
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="As encoder.model.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="What encodes; auto is a GPU where there is one.",
)
@click.option("--part", "names", multiple=True, help="Only this part. May be repeated. Default: all but sweep.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Of most parts.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A setting of every worker. May be repeated.")
@click.option(
    "--peer-python",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="As of `touchstone bench e2e`.",
)
@click.option(
    "--work-folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where pictures, weights and banks are made, and kept for the next run. Default: a temporary folder.",
)
@click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
def report(
    *,
    files: tuple[Path, ...],
    model: str,
    device: str,
    names: tuple[str, ...],
    rounds: int,
    sets: tuple[str, ...],
    peer_python: Path | None,
    work_folder: Path | None,
    as_json: bool,
) -> int:
    """
    Run the benchmarks one after the other and tell their figures in one table, with the machine and the commands.

    Each part takes a minute or more: leave the machine alone meanwhile. On a GPU the parts are others: encode,
    encode-large, e2e, latency and startup. A part that fails is told as that, and the exit code is 1.
    """
    from worker.bench.full_report import run_report  # noqa: PLC0415 - what is measured stays out of --help
    from worker.bench.machine import machine  # noqa: PLC0415 - likewise
    from worker.bench.report_parts import Asked  # noqa: PLC0415 - likewise

    told = machine()
    gpu = device == "cuda" or (device == "auto" and told["accelerator"] is not None)
    flags = told["cpu_flags"]
    bf16 = isinstance(flags, list) and bool(_BF16_FLAGS & set(flags))
    fast = next((one for one in _FAST if find_spec(one[0]) is not None), None)
    if not gpu and told["accelerator"] is not None:
        sets += ('encoder.device="cpu"',)
    asked = Asked(model, sets, rounds, "bf16" if bf16 else None, fast, peer_python)
    parts = _chosen(asked, names, gpu=gpu)
    with folder_of(work_folder) as folder, progress_bars(shown=not as_json) as progress:
        found = run_report(parts, told, folder=folder, progress=progress)
    as_text = json.dumps(found.as_object(), indent=2, allow_nan=False)
    for file in files:
        file.write_text(f"{as_text}\n" if file.suffix == ".json" else found.as_markdown(), encoding="utf-8")
    click.echo(as_text if as_json else found.as_markdown())
    return EXIT_FOUND if any(one.error is not None for one in found.ran) else EXIT_OK


def _chosen(asked: "Asked", names: tuple[str, ...], *, gpu: bool) -> "list[Part]":
    """
    The parts that were named, in their own order; all of a report where none was. Raises ``click.UsageError``.
    """
    from worker.bench.report_parts import CPU_PARTS, GPU_PARTS, cpu_parts, gpu_parts  # noqa: PLC0415 - likewise

    parts = gpu_parts(asked) if gpu else cpu_parts(asked)
    unknown = [name for name in names if name not in parts]
    if unknown:
        raise click.UsageError(f"--part {unknown[0]}: there is none here; want one of {', '.join(parts)}")
    wanted = names or (GPU_PARTS if gpu else CPU_PARTS)
    return [part for name, part in parts.items() if name in wanted]
