"""
``touchstone bench decode``: what decoding a picture costs, by part.
"""

import click

from worker.cli.bench_options import kind_of
from worker.cli.progress_bars import progress_bars


@click.command("decode")
@click.option("--size", type=click.IntRange(16, 1024), default=224, show_default=True, help="Of the encoder's input.")
@click.option(
    "--kind",
    callback=kind_of,
    default="1mp",
    show_default=True,
    help="Of the pictures, such as 0.2mp, 1mp, 4mp or 12mp.",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="In which all take turns.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="Decode JPEGs there too, as encoder.jpeg_decoder does: cpu, cuda or cuda:N. auto: a GPU, if there is one.",
)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Pictures on the device at once.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def decode(*, size: int, kind: str, rounds: int, device: str, batch: int, as_json: bool) -> None:
    """
    CPU milliseconds per picture: each part of decoding alone, then whole decodings as the worker does them.

    "whole picture" is what a bank without crops asks for, its perceptual hash and content credentials included.
    """
    from worker.bench.decode_parts import DecodeBench  # noqa: PLC0415 - what is measured stays out of --help
    from worker.bench.device_decode import DeviceBench, device_for  # noqa: PLC0415 - likewise
    from worker.bench.machine import machine  # noqa: PLC0415 - likewise
    from worker.bench.report import Report, tell  # noqa: PLC0415 - likewise

    with progress_bars(shown=not as_json) as report:
        figures = DecodeBench(size, kind, rounds).run(lambda _, number: report("decode", number + 1, rounds))
        on_device = None
        if (named := device_for(device)) is not None:
            on_device = DeviceBench(named, size, kind, rounds, batch).run(
                lambda _, number: report("device", number + 1, rounds)
            )
    found = {figure.name: figure.median for figure in figures}
    whole = found["whole picture"]
    summary: dict[str, object] = {
        "kind": kind,
        "size": size,
        "decode_ms": round(whole, 3),
        "process_ratio": round(found["whole picture, in a process"] / whole, 3),
        "torch_resize_ratio": round(found["whole picture, resized by torch"] / whole, 3),
        "oversampling_2_ratio": round(found["whole picture, jpeg_oversampling 2"] / whole, 3),
        "oversampling_1_ratio": round(found["whole picture, jpeg_oversampling 1"] / whole, 3),
    }
    if on_device is not None:
        figures += on_device.figures
        summary |= on_device.summary
    notes = ["CPU time of other processes is counted in ticks of 10 ms: more rounds for the figure in a process."]
    tell(Report("Decoding, by part", summary, figures, machine(), notes), as_json=as_json)
