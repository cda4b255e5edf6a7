"""
``touchstone config``: which settings are in effect, and where each came from.
"""

import json
import sys

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.cli.options import settings_options
from worker.redaction import one_line
from worker.settings.keys import dotted
from worker.settings.load import LoadedSettings
from worker.settings.show import flat_values, redacted_tree

PIPE_WIDTH = 10_000


@click.group()
def config() -> None:
    """
    Look at the configuration.
    """


@config.command()
@click.option("--json", "as_json", is_flag=True, help="One object: settings, origins, digest.")
@settings_options
def show(loaded: LoadedSettings, *, as_json: bool) -> None:
    """
    Print the effective settings, secrets masked, with where each came from.

    Later wins: defaults, the file, the overlay, the environment (TOUCHSTONE__KAFKA__GROUP_ID=mine), --set
    kafka.group_id=mine.
    """
    if as_json:
        print(
            json.dumps(
                {
                    "settings": redacted_tree(loaded.settings),
                    "origins": dict(loaded.origins),
                    "digest": loaded.digest,
                },
                indent=2,
            )
        )
        return
    # A pipe has no edge to fold lines at.
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPE_WIDTH).print(_table(loaded))
    print(f"digest {loaded.digest} (of the values as shown)")


def _table(loaded: LoadedSettings) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in ("key", "value", "from"):
        table.add_column(title, overflow="fold")
    for path, value in flat_values(loaded.settings).items():
        key = dotted(path)
        origin = loaded.origins[key]
        # Text, not markup: a value in brackets is a value.
        table.add_row(Text(key), Text(_cell(value)), Text(origin, style="dim" if origin == "default" else "bold"))
    return table


def _cell(value: object) -> str:
    if value is None:
        return "(not set)"
    return one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
