"""
``touchstone bench image-size``: what decoding a picture costs, by its size.
"""

from dataclasses import asdict

import click

from worker.cli.progress_bars import progress_bars


@click.command("image-size")
@click.option("--size", type=click.IntRange(16, 1024), default=224, show_default=True, help="Of the encoder's input.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="In which all take turns.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def image_size(*, size: int, rounds: int, as_json: bool) -> None:
    """
    CPU milliseconds per JPEG of 0.2 to 12 megapixels: whole, and at reduced scale (encoder.jpeg_oversampling).

    Beside it how far the encoder's input is then from what it is otherwise.
    """
    from worker.bench.image_size import ImageSizeBench  # noqa: PLC0415 - what is measured stays out of --help
    from worker.bench.machine import machine  # noqa: PLC0415 - likewise
    from worker.bench.report import Report, tell  # noqa: PLC0415 - likewise

    with progress_bars(shown=not as_json) as report:
        bench = ImageSizeBench(size, rounds)
        figures, reduced = bench.run(lambda _, number: report("image sizes", number + 1, rounds))
    summary: dict[str, object] = {"size": size, "reduced": [asdict(one) for one in reduced]}
    notes = [
        f"{one.size}, jpeg_oversampling {one.jpeg_oversampling}: off by {one.largest} of 255 at most, "
        f"{one.mean:g} in the mean"
        for one in reduced
    ]
    tell(Report("Decoding, by size of the picture", summary, figures, machine(), notes), as_json=as_json)
