"""
The effective settings: defaults, then the file, the overlay, the environment and ``--set``, where later wins.

Everything that is wrong is said at once. Paths are kept as written: a relative one is relative to the working
directory, whichever file it stands in.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from worker.errors import ConfigInvalid
from worker.settings.keys import Branch, KeyPath, Leaf, dotted, leaves, node_at
from worker.settings.layers import Given, Layer, environment_layer, file_layer, sets_layer, shown
from worker.settings.show import flat_values, redacted_tree
from worker.settings.tree import Settings

DEFAULT_CONFIG: Final = Path("config/worker.toml")
DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """
    The effective settings, and for each key (dotted) where its value came from.

    ``digest`` is the sha256 of what ``config show --json`` prints as settings: equal digests mean equal settings, but
    for the secrets. These are left out, since a weak password could be guessed from a digest that is logged.
    ``doubts``: one line for each thing that was not read and may have been meant as a setting.
    """

    settings: Settings
    origins: Mapping[str, str]
    digest: str
    doubts: Sequence[str] = ()


def load_settings(
    *, config: Path | None, overlay: Path | None, environ: Mapping[str, str], sets: Sequence[str]
) -> LoadedSettings:
    """
    The settings that all layers amount to; without ``config``, ``config/worker.toml`` is read where there is one.

    Raises ``ConfigInvalid``, whose message has a heading and one line for each thing that is wrong: where, which key,
    what was found, what is expected. A value that a later layer replaces is not judged. Relations between values are
    checked when each value is right by itself.
    """
    if config is None and DEFAULT_CONFIG.is_file():
        config = DEFAULT_CONFIG
    files = [file_layer(path) for path in (config, overlay) if path is not None]
    declared = [path for layer in files for path in layer.values]
    layers = [*files, environment_layer(environ, declared), sets_layer(sets)]
    given = _merged(layers)
    settings, wrong = _validated(given)
    problems = [*(problem for layer in layers for problem in layer.problems), *wrong]
    if settings is None or problems:
        lines = list(dict.fromkeys(problems))
        raise ConfigInvalid("\n".join([f"{len(lines)} error{'s' * (len(lines) > 1)} in the configuration:", *lines]))
    canonical = json.dumps(redacted_tree(settings), sort_keys=True, separators=(",", ":"))
    origins = {dotted(path): given[path].origin if path in given else DEFAULT for path in flat_values(settings)}
    doubts = tuple(doubt for layer in layers for doubt in layer.doubts)
    return LoadedSettings(settings, origins, sha256(canonical.encode()).hexdigest(), doubts)


def _merged(layers: Sequence[Layer]) -> dict[KeyPath, Given]:
    return {path: given for layer in layers for path, given in layer.values.items()}


def _validated(given: Mapping[KeyPath, Given]) -> tuple[Settings | None, Sequence[str]]:
    tables: dict[str, object] = {}
    for path, one in given.items():
        table = tables
        for name in path[:-1]:
            below = table.setdefault(name, {})
            assert isinstance(below, dict)  # noqa: S101 - a path goes through sections only
            table = below
        if one.value == {}:
            table.setdefault(path[-1], {})
        else:
            table[path[-1]] = one.value
    # JSON has no dates: one becomes a table, which no setting accepts. In strict mode "32" is no number and 1 no bool.
    document = json.dumps(tables, default=lambda value: {"date": str(value)})
    try:
        return Settings.model_validate_json(document, strict=True), ()
    except ValidationError as invalid:
        return None, [line for error in invalid.errors(include_url=False) for line in _lines(error, given)]


def _lines(error: ErrorDetails, given: Mapping[KeyPath, Given]) -> Iterator[str]:
    path: KeyPath = ()
    for name in map(str, error["loc"]):
        if isinstance(node_at(path), Leaf):
            break
        path = (*path, name)
    node = node_at(path)
    if isinstance(node, Branch):
        for contradiction in str(error.get("ctx", {}).get("error", error["msg"])).split("\n"):
            yield _contradiction(contradiction, path, node, given)
        return
    one = given.get(path, Given(None, DEFAULT))
    expected = node.expected if node is not None else error["msg"]
    yield f"{one.origin}: {dotted(path)} is {shown(one.value, node)}, expected {expected}"


def _contradiction(text: str, at: KeyPath, branch: Branch, given: Mapping[KeyPath, Given]) -> str:
    """
    What does not go together, after where each of the keys that it names came from.
    """
    named = [key for key, _ in leaves(branch) if re.search(rf"(?<![\w.]){re.escape(dotted(key))}(?!\w|\.\w)", text)]
    origins = list(dict.fromkeys(given[(*at, *key)].origin for key in named if (*at, *key) in given))
    return f"{', '.join(origins or [DEFAULT])}: {f'[{dotted(at)}] ' if at else ''}{text}"
