"""
``touchstone bench``: the group of the benchmarks.

Each is a file ``worker/cli/bench_<name>.py`` with a command ``<name>``; what it measures is in ``worker/bench``.
"""

import importlib

import click

BENCHES = {
    "e2e": "uploads per second through real Kafka and Redis, beside the naive loop, in one run",
    "stages": "what each stage costs per upload",
    "latency": "p50, p90 and p99 while uploads arrive at 50 % and 90 % of a worker's capacity",
    "encode": "what encoding costs by precision and batch size, beside this device's matrix products",
    "agreement": "whether another backend or precision of the encoder judges alike",
    "decode": "what decoding a picture costs, by part",
    "image-size": "what decoding a picture costs, by its size, whole and at reduced scale",
    "bank": "what searching costs by the size of the bank, beside encoding",
    "sweep": "the whole worker by size of micro-batch and by size of image",
    "scaling": "one worker and several, each with a core of its own, over few partitions and many",
    "cache": "what a share of known bytes among the uploads brings",
    "simulate": "a fleet on paper: how it scales beyond this machine",
    "size": "from uploads per second to workers, partitions and Redis memory",
    "startup": "how long a worker takes until it is ready, by phase, and how much memory it holds",
    "report": "all figures that a README would quote of this machine, in one table",
}
"""Name of each benchmark, and what ``--help`` says of it; dashes in a name are underscores in its file."""


class Benches(click.Group):
    """
    A group whose benchmarks are imported when they are called.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """
        All benchmarks.
        """
        return list(BENCHES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """
        The command of ``worker/cli/bench_<name>.py``.
        """
        if cmd_name not in BENCHES:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"worker.cli.bench_{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - likewise
        """
        The list in ``--help``, without importing anything.
        """
        with formatter.section("Benchmarks"):
            formatter.write_dl(list(BENCHES.items()))


@click.group(cls=Benches)
def bench() -> None:
    """
    Measure the worker on this machine: results as a table, or as one JSON object with --json.

    Figures are medians of rounds in which all contenders take turns. Compare ratios of one run, not rates of two.
    """
