"""
Options that commands share. What they mean is decided in ``worker.settings``.
"""

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
import structlog

from worker.settings.load import load_settings
from worker.telemetry.log import configure_logging

log = structlog.get_logger(__name__)

Returned = TypeVar("Returned")


def sha256_text(value: str) -> str:
    """
    The type of an option that takes the sha256 of a file; returns it in small letters.
    """
    if re.fullmatch(r"[0-9a-fA-F]{64}", value) is None:
        raise click.BadParameter(f"{value!r} is no sha256: expected 64 hex digits, as `sha256sum FILE` prints them")
    return value.lower()


def settings_options(command: Callable[..., Returned]) -> Callable[..., Returned]:
    """
    Give a command ``--config``, ``--overlay`` and ``--set``, and pass it the ``LoadedSettings`` as ``loaded``.

    The log is set up as the settings say, before the command begins. Raises ``ConfigInvalid``.
    """

    @click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="Settings file. Default: config/worker.toml, where there is one.",
    )
    @click.option(
        "--overlay",
        "overlay_path",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="Second settings file, whose keys win over the first.",
    )
    @click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="KEY=VALUE",
        help="One setting, such as kafka.group_id=mine; wins over files and environment. May be repeated.",
    )
    @functools.wraps(command)
    def with_settings(
        *args: object, config_path: Path | None, overlay_path: Path | None, sets: tuple[str, ...], **kwargs: object
    ) -> Returned:
        loaded = load_settings(config=config_path, overlay=overlay_path, environ=os.environ, sets=sets)
        configure_logging(loaded.settings.log, service=loaded.settings.service.name)
        for doubt in loaded.doubts:
            log.warning("settings.not_read", problem=doubt)
        return command(*args, loaded=loaded, **kwargs)

    return with_settings
