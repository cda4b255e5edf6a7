"""
``touchstone doctor``: is everything there that a worker of these settings needs, and if not, what is to be done.
"""

import json
import logging
import sys
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from worker.cli.options import settings_options
from worker.errors import EXIT_FOUND, EXIT_OK
from worker.settings.load import LoadedSettings

if TYPE_CHECKING:
    from worker.doctor.finding import Checked

COLOURS = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One object instead of a line per check.")
@settings_options
def doctor(loaded: LoadedSettings, *, as_json: bool) -> int:
    """
    Check servers, topics, weights, bank, canaries, calibration, codecs and this machine; change nothing.

    One line per check: ok, warning, failed or skipped, and what to do. Exit code 1 when a check failed, else 0.
    """
    # Imported here, because the checks bring torch and the servers' clients.
    from worker.doctor.finding import examine  # noqa: PLC0415 - see above
    from worker.doctor.machine import machine_checks  # noqa: PLC0415 - see above
    from worker.doctor.model import model_checks  # noqa: PLC0415 - see above
    from worker.doctor.parts import parts_of  # noqa: PLC0415 - see above
    from worker.doctor.servers import server_checks  # noqa: PLC0415 - see above

    # What the client says of each attempt, its finding says once.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    settings = loaded.settings
    parts = parts_of(settings)
    checks = [*server_checks(settings, parts), *model_checks(settings, parts), *machine_checks(settings)]
    found = show(examine(checks), as_json=as_json)
    return EXIT_FOUND if found["failed"] else EXIT_OK


def show(examined: "Iterable[Checked]", *, as_json: bool) -> Counter[str]:
    """
    Print each finding as it comes, or all of them as one object; how many there are of each status.
    """
    found: Counter[str] = Counter()
    listed = []
    console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
    for checked in examined:
        finding = checked.finding
        found[finding.status] += 1
        listed.append(
            {"check": checked.name, "status": finding.status, "text": finding.text, "advice": finding.advice or None}
        )
        if not as_json:
            console.print(_line(checked))
    if as_json:
        counts = {status: found[status] for status in COLOURS}
        print(json.dumps({"ok": not found["failed"], "counts": counts, "checks": listed}, indent=2))
    else:
        print(", ".join(f"{found[status]} {status}" for status in COLOURS if found[status]))
    return found


def _line(checked: "Checked") -> Text:
    finding = checked.finding
    text = f"{finding.text.rstrip('.')}. To do: {finding.advice}" if finding.advice else finding.text
    plain = "".join(character if character.isprintable() else " " for character in text)
    return Text.assemble((f"{finding.status:8}", COLOURS[finding.status]), f"{checked.name:12}", plain)
