"""
Options that benchmarks share, and what they come to: settings for the processes that are measured.
"""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import click

from worker.settings.load import load_settings
from worker.settings.tree import LogSettings
from worker.telemetry.log import configure_logging

Returned = TypeVar("Returned")

DEFAULT_MODEL = "ViT-B-32"


def bench_options(command: Callable[..., Returned]) -> Callable[..., Returned]:
    """
    Give a benchmark the options by which all are configured, from ``--model`` to ``--json``.

    It is passed ``sets``, ``rounds``, ``work_folder`` and ``as_json``. Raises ``ConfigInvalid`` for what is no setting.
    """

    @click.option(
        "--model",
        default=DEFAULT_MODEL,
        show_default=True,
        help="As encoder.model; an architecture without weights, such as ViT-L-14, is given random ones.",
    )
    @click.option("--precision", help="As encoder.precision. Default: the setting's.")
    @click.option("--backend", help="As encoder.backend. Default: the setting's.")
    @click.option(
        "--set",
        "more",
        multiple=True,
        metavar="KEY=VALUE",
        help="A setting of the worker that is measured; wins over its files and environment. May be repeated.",
    )
    @click.option(
        "--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="How often all have a turn."
    )
    @click.option(
        "--work-folder",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where pictures, weights and banks are made, and kept for the next run. Default: a temporary folder.",
    )
    @click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
    @functools.wraps(command)
    def with_sets(
        *args: object,
        model: str,
        precision: str | None,
        backend: str | None,
        more: tuple[str, ...],
        **kwargs: Any,  # noqa: ANN401 - click's
    ) -> Returned:
        named = {"model": model, "precision": precision, "backend": backend}
        sets = [f"encoder.{name}={json.dumps(value)}" for name, value in named.items() if value is not None]
        sets += more
        checked = [one for one in sets if not one.startswith("encoder.model=")]
        load_settings(config=None, overlay=None, environ={}, sets=checked)
        configure_logging(LogSettings(level="error"))
        return command(*args, sets=tuple(sets), **kwargs)

    return with_sets


def numbers_of(_context: click.Context, _option: click.Parameter, given: str) -> tuple[int, ...]:
    """
    An option's callback: different numbers from 1, with commas between them. Raises ``click.BadParameter``.
    """
    try:
        found = tuple(int(one) for one in given.split(","))
    except ValueError:
        raise click.BadParameter(f"{given!r} is no list of numbers such as 1,8,32") from None
    if min(found) < 1 or len(set(found)) < len(found):
        raise click.BadParameter(f"{given!r}: want different numbers, each at least 1")
    return found


def kind_of(_context: click.Context, _option: click.Parameter, given: str) -> str:
    """
    An option's callback: the name of a size of pictures. Raises ``click.BadParameter`` with those that there are.
    """
    return _known_kinds([given])[0]


def kinds_of(_context: click.Context, _option: click.Parameter, given: str) -> tuple[str, ...]:
    """
    An option's callback: different names of sizes of pictures. Raises ``click.BadParameter`` likewise.
    """
    return _known_kinds(given.split(","))


def _known_kinds(names: Sequence[str]) -> tuple[str, ...]:
    from worker.bench.corpus import KINDS  # noqa: PLC0415 - what draws pictures stays out of --help

    if not set(names) <= set(KINDS) or len(set(names)) < len(names):
        raise click.BadParameter(f"{','.join(names)!r}: want one of {', '.join(KINDS)}, and none twice")
    return tuple(names)


@contextmanager
def folder_of(work_folder: Path | None) -> Iterator[Path]:
    """
    The folder that was asked for, else one that is gone afterwards.
    """
    if work_folder is not None:
        work_folder.mkdir(parents=True, exist_ok=True)
        yield work_folder.resolve()
        return
    with TemporaryDirectory(prefix="touchstone-bench-") as made:
        yield Path(made)
