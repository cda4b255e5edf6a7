"""
``touchstone schemas``: the contract as JSON Schema and AsyncAPI files, written or compared.

The files are made in ``schemas.export``; here they are only placed and spoken about.
"""

import json
from pathlib import Path
from typing import Final

import click

from schemas.export import COMMITTED, drift, export_to
from worker.errors import EXIT_FOUND, ConfigInvalid

_CHECKOUT: Final = COMMITTED.parents[1] / "pyproject.toml"


@click.group(name="schemas")
def schemas() -> None:
    """
    The event contract for those who do not read Python.
    """


@schemas.command(name="export")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 when a file differs from what would be written.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write to or to compare with. Default: schemas/json of this checkout; of an installed package, "
    "./schemas/json to write to and the package's own files to compare with.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines for people.")
def export(*, check: bool, out: Path | None, as_json: bool) -> None:
    """
    Write the JSON Schema of each event and the AsyncAPI document.

    Exit codes: 0 written or equal, 1 drift found (--check), 2 the folder cannot be used.
    """
    if check:
        _check(out or COMMITTED, as_json=as_json)
    else:
        _write(out or (COMMITTED if _CHECKOUT.is_file() else Path("schemas") / "json"), as_json=as_json)


def _check(folder: Path, *, as_json: bool) -> None:
    if not folder.is_dir():
        raise ConfigInvalid(
            f"{folder} is no folder; expected one that `touchstone schemas export --out {folder}` wrote"
        )
    found = drift(folder)
    if as_json:
        files = [{"file": one.file, "problem": one.problem} for one in found]
        click.echo(json.dumps({"folder": str(folder), "drift": files}))
    elif not found:
        click.echo(f"{folder} says what the models say")
    for one in () if as_json else found:
        click.echo(f"{folder / one.file}: {_SAID[one.problem]}")
    if found:
        if not as_json:
            click.echo(f"run `touchstone schemas export --out {folder}` and commit what it changes", err=True)
        raise SystemExit(EXIT_FOUND)


_SAID: Final = {
    "missing": "missing, expected it to be exported",
    "differs": "differs from what the models say",
    "unknown": "exported by nobody, delete it",
}


def _write(folder: Path, *, as_json: bool) -> None:
    try:
        written = export_to(folder)
    except OSError as error:
        raise ConfigInvalid(f"cannot write to {folder} ({error.strerror}); give another folder with --out") from error
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "written": [path.name for path in written]}))
        return
    for path in written:
        click.echo(str(path))
