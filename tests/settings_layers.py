"""
Settings from layers that a test writes down, and what is said of layers that are wrong.

Files are given by their contents and written into the working directory: a test chooses an empty one first.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from worker.errors import ConfigInvalid
from worker.settings.load import LoadedSettings, load_settings


def load(
    *,
    config: str | None = None,
    overlay: str | None = None,
    environ: Mapping[str, str] | None = None,
    sets: Sequence[str] = (),
) -> LoadedSettings:
    """
    The settings of these layers, where files are given by their contents.
    """
    paths: list[Path | None] = []
    for name, text in (("worker.toml", config), ("local.toml", overlay)):
        paths.append(None if text is None else Path(name))
        if text is not None:
            Path(name).write_text(text, encoding="utf-8")
    return load_settings(config=paths[0], overlay=paths[1], environ=environ or {}, sets=sets)


def refused(
    *,
    config: str | None = None,
    overlay: str | None = None,
    environ: Mapping[str, str] | None = None,
    sets: Sequence[str] = (),
) -> list[str]:
    """
    What is said of layers that are wrong, line by line below the heading.
    """
    with pytest.raises(ConfigInvalid) as caught:
        load(config=config, overlay=overlay, environ=environ, sets=sets)
    heading, *lines = str(caught.value).splitlines()
    assert heading.startswith(f"{len(lines)} error")
    return lines
