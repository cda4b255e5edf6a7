"""
``touchstone bank index``: an approximate index for a bank that is too large to compare with every reference.

Options, exit codes and what is shown; the work is ``worker.bank.indexing``.
"""

import json
from pathlib import Path

import click

from worker.cli.options import settings_options
from worker.cli.progress_bars import progress_bars
from worker.errors import EXIT_OK
from worker.settings.load import LoadedSettings


@click.command()
@click.argument("path", metavar="BANK", type=click.Path(path_type=Path))
@click.option("--sample", type=click.IntRange(min=100), help="Queries of the trial. Default: 1000.")
@click.option("--version", help="Version of the indexed bank. Default: the old one's last number plus one.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the indexed bank goes. Default: in place of BANK.")
@click.option("--replace", is_flag=True, help="Take the place of a bank that is at --out already, in one step.")
@click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
@settings_options
def index(
    path: Path,
    *,
    sample: int | None,
    version: str | None,
    out: Path | None,
    replace: bool,
    as_json: bool,
    loaded: LoadedSettings,
) -> int:
    """
    Give BANK an approximate index and release it as its next version; its references and its judgement stay.

    The index is tried against exact search, half of the queries being references of the bank and half unlike any, at
    one depth after the other: the first that finds 99.7 % of the nearest, decides as exact search does for 99.7 % of
    either half, and seldom has to look further, is kept. Where the best stays below 99.5 %, nothing is changed and the
    exit code is 1. Workers use it where bank.index is auto. What it cannot answer surely, or asks for more neighbours
    than were tried, is searched in every cell or exactly. Worth it from some 200,000 references on. Adding to the bank
    drops it; while more than 1 % of a label is disabled, workers set it aside and search exactly. Canaries stay.
    """
    from worker.adapters.faiss_indexing import index_tools  # noqa: PLC0415 - FAISS takes its time to import; --help needs none
    from worker.bank.indexing import IndexPlan, index_bank  # noqa: PLC0415 - likewise
    from worker.bank.search_quality import SAMPLE  # noqa: PLC0415 - likewise

    plan = IndexPlan(version=version, out=out, replace=replace, sample=sample or SAMPLE)
    with progress_bars(shown=not as_json) as progress:
        made = index_bank(path, plan=plan, tools=index_tools(loaded.settings.bank), progress=progress)
    record = made.manifest.search
    if record is None:
        raise RuntimeError("the bank was sealed without its index")
    if as_json:
        value = {"bank": str(out or path), "id": made.manifest.id, "version": made.manifest.version}
        click.echo(json.dumps({**value, "search": record.model_dump(mode="json")}, indent=2))
        return EXIT_OK
    cells = ", ".join(f"{count} of {label}" for label, count in record.cells.items())
    click.echo(f"bank {made.manifest.id} {made.manifest.version} at {out or path} carries an index of {cells} cells")
    click.echo(
        f"looking at {record.probes} cells it finds {record.recall:.2%} of the {record.depth} nearest, and "
        f"{record.agreement:.2%} of {record.queries} decisions are those of exact search"
    )
    return EXIT_OK
