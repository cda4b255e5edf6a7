"""
``touchstone bench agreement``: whether the encoder, computed or shown pictures otherwise, judges as configured.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import click
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from worker.cli.options import settings_options
from worker.cli.progress_bars import progress_bars
from worker.errors import EXIT_FOUND, EXIT_OK, ConfigInvalid
from worker.settings.load import LoadedSettings
from worker.settings.tree import ENCODER_PRECISIONS, EncoderSettings

DRAWN = 200
"""Pictures that are drawn where none are named."""


@click.command("agreement")
@click.argument("pictures", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--backend", type=click.Choice(list(ENCODER_PRECISIONS)), help="The candidate's. Default: as configured.")
@click.option("--precision", help="The candidate's, such as bf16 or int8. Default: as configured.")
@click.option("--resize", type=click.Choice(["pillow", "torch"]), help="The candidate's. Default: as configured.")
@click.option("--jpeg-oversampling", type=click.IntRange(0, 8), help="The candidate's. Default: as configured.")
@click.option("--jpeg-decoder", type=click.Choice(["pillow", "device"]), help="Likewise. Default: as configured.")
@click.option("--count", type=click.IntRange(1), help=f"Pictures at most. Default: all, or {DRAWN} drawn ones.")
@click.option(
    "--min-agreement", type=click.FloatRange(0, 1), help="Exit with 1 where a smaller share of verdicts agrees."
)
@click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
@settings_options
def agreement(
    pictures: tuple[Path, ...],
    *,
    count: int | None,
    min_agreement: float | None,
    as_json: bool,
    loaded: LoadedSettings,
    **asked: object,
) -> int:
    """
    Judge PICTURES (files or folders) with the configured encoder and with another backend or precision of it.

    Or with pictures brought to its input otherwise. Both are asked over the configured bank, under the configured
    policy. Verdicts agree where status, label and action are the same. Without PICTURES some are drawn, which look like
    no photograph: name your own uploads.

    A worker that is shown pictures otherwise needs a bank that was built so. Over this one only uploads are seen
    otherwise, and the references as ever.
    """
    from worker.bench.agreement import drawn, files_below, run_agreement  # noqa: PLC0415 - torch; --help needs none
    from worker.bench.corpus import KINDS  # noqa: PLC0415 - likewise

    settings = loaded.settings
    candidate = _candidate(settings.encoder, asked)
    if candidate.jpeg_decoder == "device" and not settings.decode.may_decode_on_device:
        raise ConfigInvalid("--jpeg-decoder device needs --set decode.unisolated_device=true: see config/worker.toml")
    samples = files_below(pictures, count) if pictures else drawn(KINDS["0.2mp"], count or DRAWN)
    with progress_bars(shown=not as_json) as progress:
        found = run_agreement(settings, candidate, samples, progress=progress)
    told = found.as_object()
    if as_json:
        click.echo(json.dumps(told, indent=2, allow_nan=False))
    else:
        Console().print(_table(told))
    if min_agreement is not None and found.agreement < min_agreement:
        click.echo(
            f"touchstone: {found.agreement:.4f} of the verdicts agree, --min-agreement asks for {min_agreement}: keep "
            "the configured encoder, or build the bank with the other one and compare their evaluations",
            err=True,
        )
        return EXIT_FOUND
    return EXIT_OK


def _candidate(configured: EncoderSettings, asked: Mapping[str, object]) -> EncoderSettings:
    """
    The configured encoder with other settings, but for those that are None.

    Raises ``ConfigInvalid`` where that is no other, or nothing there is.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    if not given:
        raise ConfigInvalid(
            "nothing says which encoder to compare with: give --backend, --precision, --resize, --jpeg-oversampling, "
            "--jpeg-decoder or several of them"
        )
    try:
        candidate = EncoderSettings.model_validate({**configured.model_dump(), **given})
    except ValidationError as error:
        raise ConfigInvalid(f"the candidate cannot be: {error.errors()[0]['msg']}") from error
    if candidate == configured:
        raise ConfigInvalid("what is given names the configured encoder: name another")
    return candidate


def _table(told: dict[str, object]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in told.items():
        if isinstance(value, list):
            for flip in value:
                table.add_row(
                    "flipped", f"{flip['name']}: {_decided(flip['reference'])}, {_decided(flip['candidate'])}"
                )
        else:
            table.add_row(name, str(value))
    return table


def _decided(judgement: dict[str, object]) -> str:
    return f"{judgement['label'] or judgement['status']} ({judgement['action']}, {judgement['score']})"
