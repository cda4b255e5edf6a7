"""
The effective settings as others may see them: secrets masked, everything a plain value. Writes nothing.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, SecretStr

from worker.redaction import MASK, mask_url, mask_userinfo, redact_text
from worker.settings.keys import KeyPath, Leaf, node_at
from worker.settings.tree import Settings

Shown = str | int | float | bool | None | list["Shown"] | dict[str, "Shown"]


def flat_values(settings: Settings) -> dict[KeyPath, Shown]:
    """
    Every effective value by its path, in the order of the tree, redacted.

    A section whose names the operator chooses stands by itself while it is empty.
    """
    return dict(_flat(settings, ()))


def redacted_tree(settings: Settings) -> dict[str, Shown]:
    """
    The same, nested as in the file.
    """
    tree: dict[str, Shown] = {}
    for path, value in flat_values(settings).items():
        table = tree
        for name in path[:-1]:
            below = table.setdefault(name, {})
            assert isinstance(below, dict)  # noqa: S101 - a path goes through sections only
            table = below
        table[path[-1]] = value
    return tree


def _flat(value: object, path: KeyPath) -> list[tuple[KeyPath, Shown]]:
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping) and value:
        return [pair for name, below in value.items() for pair in _flat(below, (*path, str(name)))]
    return [(path, _shown(value, path))]


def _shown(value: object, path: KeyPath) -> Shown:
    if isinstance(value, SecretStr):
        node = node_at(path)
        return mask_url(value.get_secret_value()) if isinstance(node, Leaf) and node.url else MASK
    if isinstance(value, str | Path):
        return redact_text(mask_userinfo(str(value)))
    if isinstance(value, tuple):
        return [_shown(item, path) for item in value]
    if isinstance(value, Mapping):
        return {}
    assert value is None or isinstance(value, int | float)  # noqa: S101 - the tree holds nothing else
    return value
