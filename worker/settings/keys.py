"""
Which settings there are, and what each expects, read from the tree itself. No values, no files.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from functools import cache
from typing import Any

from worker.settings.tree import Settings

KeyPath = tuple[str, ...]

JsonSchema = Mapping[str, Any]
"""A piece of the JSON Schema which pydantic makes of the tree: its public description of types and bounds."""

ANY_NAME = "<name>"


@dataclass(frozen=True, slots=True)
class Leaf:
    """
    One setting. ``textual``: its value is a text; ``optional``: it may be left unset; ``secret``: it is never shown.

    Of a secret ``url`` the host is shown. Of what is ``beside_secret`` a wrong value is told by its length alone: the
    secret may have been given in its place.
    """

    expected: str
    textual: bool
    optional: bool
    secret: bool
    url: bool
    beside_secret: bool = False


@dataclass(frozen=True, slots=True)
class Branch:
    """
    A section. With ``named``, its children are named by the operator (the S3 profiles) and each looks like ``named``.
    """

    children: Mapping[str, "Leaf | Branch"]
    named: "Leaf | Branch | None" = None
    name_pattern: str = ""

    def child(self, name: str) -> "Leaf | Branch | None":
        """
        What stands under that name; None when nothing may.
        """
        if self.named is not None and re.fullmatch(self.name_pattern, name):
            return self.named
        return self.children.get(name)


@cache
def root() -> Branch:
    """
    The whole tree.
    """
    schema = Settings.model_json_schema()
    tree = _read(schema, schema["$defs"])
    assert isinstance(tree, Branch)  # noqa: S101 - the root of the tree is a section
    return tree


def node_at(path: KeyPath) -> Leaf | Branch | None:
    """
    What stands at a path; None when there is no such key.
    """
    node: Leaf | Branch | None = root()
    for name in path:
        node = node.child(name) if isinstance(node, Branch) else None
    return node


def leaves(branch: Branch, at: KeyPath = ()) -> Iterator[tuple[KeyPath, Leaf]]:
    """
    Every setting below a section, in the order of the tree; a name that the operator chooses stands as ``<name>``.
    """
    below = dict(branch.children) if branch.named is None else {ANY_NAME: branch.named}
    for name, node in below.items():
        if isinstance(node, Leaf):
            yield (*at, name), node
        else:
            yield from leaves(node, (*at, name))


def dotted(path: KeyPath) -> str:
    """
    A path as an operator writes it; a name that holds a dot is quoted, as in TOML.
    """
    return ".".join(name if re.fullmatch(r"[A-Za-z0-9_-]+|<name>", name) else f'"{name}"' for name in path)


def nearest(path: KeyPath) -> str:
    """
    The known key that an unknown one most likely meant: a sibling, else the same name elsewhere, else the most alike.
    """
    meant: KeyPath = ()
    known: Leaf | Branch = root()
    for name in path:
        if isinstance(known, Leaf):
            return dotted(meant)
        alike = [name] if known.child(name) is not None else get_close_matches(name, known.children, n=1)
        child = known.child(alike[0]) if alike else None
        if child is None:
            break
        meant, known = (*meant, alike[0]), child
    else:
        return dotted(meant)
    every = [key for key, _ in leaves(root())]
    candidates = [key for key in every if key[-1] == path[-1]] or every
    return max((dotted(key) for key in candidates), key=lambda key: SequenceMatcher(None, dotted(path), key).ratio())


def _read(schema: JsonSchema, definitions: JsonSchema) -> Leaf | Branch:
    if "$ref" in schema:
        return _read(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    for pattern, named in schema.get("patternProperties", {}).items():
        return Branch({}, _read(named, definitions), pattern)
    if "properties" in schema:
        return Branch({name: _read(below, definitions) for name, below in schema["properties"].items()})
    given = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    kind = given[0]
    return Leaf(
        expected=_expected(kind),
        textual=kind.get("type") == "string",
        optional="anyOf" in schema,
        secret=kind.get("writeOnly", False),
        url=kind.get("format") == "uri",
        beside_secret=schema.get("besideSecret", False),
    )


def _expected(schema: JsonSchema) -> str:
    """
    What a value must be, in plain words.
    """
    if "enum" in schema:
        return "one of " + ", ".join(f'"{choice}"' for choice in schema["enum"])
    match schema["type"]:
        case "boolean":
            return "true or false"
        case "integer":
            return "a whole number" + _bounds(schema)
        case "number":
            return "a number" + _bounds(schema)
        case "array":
            return f"a list, each item {_expected(schema['items'])}"
        case _:
            return _expected_text(schema)


def _expected_text(schema: JsonSchema) -> str:
    if "pattern" in schema:
        return f"a text that matches {schema['pattern']}"
    if schema.get("format") == "path":
        return "a path"
    return "a text that is not empty" if schema.get("minLength") else "a text"


def _bounds(schema: JsonSchema) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f", from {schema['minimum']} to {schema['maximum']}"
    words = (("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"))
    said = [f"{word} {schema[bound]}" for bound, word in words if bound in schema]
    return ", " + " and ".join(said) if said else ""
