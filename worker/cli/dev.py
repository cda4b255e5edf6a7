"""
``touchstone dev``: a real Kafka and a real Redis in the foreground.
"""

import click

from worker.dev.servers import run_in_foreground


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One object on stdout, in one line, as soon as both answer.")
def dev(*, as_json: bool) -> None:
    """
    Bring up a real Kafka and a real Redis on free ports of 127.0.0.1, say what to export, and stop both at Ctrl-C.

    Needs the extra touchstone-worker[dev]; no Java, Docker or root.
    """
    run_in_foreground(click.echo, as_json=as_json)
