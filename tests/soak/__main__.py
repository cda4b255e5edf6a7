"""
`make soak`: every campaign in its long form, and at the end one table; exit code 1 where anything was lost or early.

`python -m tests.soak --only kill --json`; what is how long, the variables of ``scale.py`` say.
"""

import argparse
import logging
import os
import sys
import tempfile
import traceback
from pathlib import Path

from tests.soak.campaigns import CAMPAIGNS
from tests.soak.scale import Scale
from tests.soak.tally import Tally, as_json, as_table
from tests.worker_rig import small_instruments


def main() -> int:
    """
    The exit code: 0 where nothing was lost, nothing early, and no campaign broke off.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Long campaigns of faults, and a table.")
    parser.add_argument("--only", action="append", choices=list(CAMPAIGNS), help="one campaign; may be given again")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    told = parser.parse_args()
    try:
        scale = Scale.of(os.environ)
    except ValueError as error:
        parser.error(str(error))
    # Every client tells of every server that a campaign ends; what matters is in the table.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    rows: list[Tally] = []
    with tempfile.TemporaryDirectory(prefix="touchstone-soak-") as scratch:
        folder = Path(scratch)
        instruments = small_instruments(folder)
        for name in told.only or CAMPAIGNS:
            sys.stderr.write(f"{name} ...\n")
            try:
                for row in CAMPAIGNS[name](instruments, folder, scale):
                    rows.append(row)
                    sys.stderr.write(f"{row}\n")
            except KeyboardInterrupt:
                rows.append(Tally(name, wrong=("interrupted",)))
                break
            except Exception as fault:  # noqa: BLE001 - the other campaigns still count, and the table tells of it
                traceback.print_exc()
                rows.append(Tally(name, wrong=(f"broke off: {type(fault).__name__}; see above",)))
    sys.stdout.write((as_json(rows) if told.json else as_table(rows)) + "\n")
    return 0 if Tally.of(rows).good else 1


if __name__ == "__main__":
    sys.exit(main())
