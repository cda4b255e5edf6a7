"""
What each layer says: the files, the environment and ``--set``, as values by key, each with where it came from.

Here keys are checked and values are read; whether a value is in its bounds is asked once all layers lie together.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from worker.redaction import MASK, mask_url, mask_userinfo, one_line, redact_text
from worker.settings.keys import Branch, KeyPath, Leaf, dotted, leaves, nearest, node_at, root

PREFIX: Final = "TOUCHSTONE__"
ALMOST: Final = "TOUCHSTONE_"
"""What a variable begins with that may have been meant as a setting, and would be passed over without a word."""

ALIKE: Final = 0.9
CONVENTIONAL: Final[Mapping[str, KeyPath]] = {
    "KAFKA_BOOTSTRAP_SERVERS": ("kafka", "bootstrap_servers"),
    "REDIS_URL": ("redis", "url"),
}
"""Variables that are common beyond Touchstone; one of ours wins over them, and an empty one says nothing."""

MAX_SHOWN_CHARS: Final = 120


@dataclass(frozen=True, slots=True)
class Given:
    """
    A value as a layer gives it.
    """

    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class Layer:
    """
    What one layer gives, and one line for each thing in it that cannot be meant, or that may have been meant otherwise.
    """

    values: Mapping[KeyPath, Given] = field(default_factory=dict)
    problems: Sequence[str] = ()
    doubts: Sequence[str] = ()


def file_layer(path: Path) -> Layer:
    """
    A TOML file; a missing, unreadable or malformed one is a problem. Relative paths in it stay relative to the cwd.
    """
    origin = str(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Layer(problems=[f"{origin}: found no such file in {Path.cwd()}; name one that exists, or none"])
    except (OSError, UnicodeDecodeError) as fault:
        return Layer(problems=[f"{origin}: cannot be read as a text file ({type(fault).__name__})"])
    except tomllib.TOMLDecodeError as fault:
        return Layer(problems=[f"{origin}: is not TOML: {fault}"])
    return _collect(_place((), tables, origin))


def environment_layer(environ: Mapping[str, str], declared: Sequence[KeyPath]) -> Layer:
    """
    ``TOUCHSTONE__SECTION__KEY=value``, and the conventional variables below them.

    A variable's name is in capitals and has no hyphens: one that names an S3 profile means the profile among those
    ``declared`` by the files which reads the same but for case and punctuation, else a new one in lower case.

    Of variables that begin with ``TOUCHSTONE_`` alone, one that names a section as only a setting does is a problem.
    One that reads like a setting otherwise is a doubt: Kubernetes sets such names for every service. Others are not
    ours.
    """
    found: list[tuple[KeyPath, Given | str]] = []
    doubts: list[str] = []
    for variable, path in CONVENTIONAL.items():
        if environ.get(variable):
            found += _place_text(path, environ[variable], f"environment {variable}")
    for variable in sorted(environ):
        if variable.startswith(PREFIX):
            names = tuple(variable.removeprefix(PREFIX).lower().split("__"))
            found += _place_text(_as_declared(names, declared), environ[variable], f"environment {variable}")
        elif meant := _meant(variable):
            text = f"environment {variable}: is no setting and is not read; settings begin with {PREFIX}, as {meant}"
            if "__" in variable:
                found.append(((), text))
            else:
                doubts.append(text)
    return replace(_collect(found), doubts=doubts)


def sets_layer(sets: Sequence[str]) -> Layer:
    """
    ``KEY=VALUE`` from the command line, the last of a key winning.
    """
    found: list[tuple[KeyPath, Given | str]] = []
    for text in sets:
        key, has_value, value = text.partition("=")
        path = _key_path(key) if has_value else None
        if path is None:
            # Nothing of the text is repeated: what was to be set may be a secret.
            found.append(((), "--set: found no KEY=VALUE, such as kafka.group_id=touchstone"))
        else:
            found += _place_text(path, value, "--set")
    return _collect(found)


def shown(value: object, leaf: Leaf | None) -> str:
    """
    A value for a message, as TOML would write it: secrets masked, long ones cut.
    """
    if leaf is not None and leaf.secret:
        return mask_url(value) if leaf.url and isinstance(value, str) else MASK
    if leaf is not None and leaf.beside_secret and isinstance(value, str):
        return f"a text of {len(value)} characters"
    text = one_line(redact_text(json.dumps(_masked(value), ensure_ascii=False, default=str)))
    return text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "…"


def _masked(value: object) -> object:
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return mask_userinfo(value) if isinstance(value, str) else value


def _place(path: KeyPath, value: object, origin: str) -> Iterator[tuple[KeyPath, Given | str]]:
    """
    The settings that a value at a path amounts to, each with what is given or with what is wrong.
    """
    node = node_at(path)
    if node is None:
        # The value is not repeated: a secret under a misspelt key is a secret.
        yield path, f"{origin}: {dotted(path)} is no setting; the nearest is {nearest(path)}"
    elif isinstance(node, Leaf):
        yield path, Given(None if value == "" and node.optional else value, origin)
    elif not isinstance(value, Mapping):
        yield path, f"{origin}: {dotted(path)} is a section, found a single value; expected a table of its keys"
    elif not value and path:
        yield path, Given({}, origin)  # a profile without keys of its own is a profile all the same
    else:
        for name, below in value.items():
            yield from _place((*path, name), below, origin)


def _place_text(path: KeyPath, text: str, origin: str) -> Iterator[tuple[KeyPath, Given | str]]:
    """
    The same for a value that arrives as text: TOML where it is TOML, else itself; a text setting stays text.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        yield path, f"{origin}: {dotted(path)} holds bytes that are not UTF-8; expected text"
        return
    node = node_at(path)
    value = _toml_value(text)
    if isinstance(node, Branch) or (isinstance(node, Leaf) and not node.textual):
        yield from _place(path, text if value is None else value, origin)
    else:
        yield from _place(path, value if isinstance(value, str) else text, origin)


def _collect(found: Iterator[tuple[KeyPath, Given | str]] | Sequence[tuple[KeyPath, Given | str]]) -> Layer:
    values: dict[KeyPath, Given] = {}
    problems: list[str] = []
    for path, what in found:
        if isinstance(what, Given):
            values[path] = what
        else:
            problems.append(one_line(what))
    return Layer(values, problems)


def _toml_value(text: str) -> object | None:
    try:
        tables = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return None
    return tables["value"] if len(tables) == 1 else None  # a text with a newline could hold a second key


def _key_path(key: str) -> KeyPath | None:
    """
    The path of a key as TOML reads it, ``fetch.s3."eu.west".region`` too; None when it is no key.
    """
    try:
        tables: object = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return None
    path: list[str] = []
    while isinstance(tables, dict):
        if len(tables) != 1:
            return None
        ((name, tables),) = tables.items()
        path.append(name)
    return tuple(path)


def _as_declared(names: KeyPath, declared: Sequence[KeyPath]) -> KeyPath:
    """
    The path with the name of a profile as the files write it.
    """
    path: KeyPath = ()
    for name in names:
        node = node_at(path)
        spellings = {known[len(path)] for known in declared if len(known) > len(path) and known[: len(path)] == path}
        alike = sorted(known for known in spellings if _as_variable(known) == _as_variable(name))
        by_operator = isinstance(node, Branch) and node.named is not None
        path = (*path, alike[0] if by_operator and alike and name not in alike else name)
    return path


def _meant(variable: str) -> str | None:
    """
    The setting's variable that one of almost our prefix most likely meant; None where it means none.
    """
    if not variable.startswith(ALMOST):
        return None
    name = variable.removeprefix(ALMOST).lower()
    path = tuple(name.split("__"))
    if len(path) > 1 and isinstance(node_at(path[:1]), Branch):
        return _variable_of(path if node_at(path) is not None else tuple(nearest(path).split(".")))
    known = {"_".join(key): key for key, _ in leaves(root())}
    alike = get_close_matches(name, known, n=1, cutoff=ALIKE)
    return _variable_of(known[alike[0]]) if alike else None


def _variable_of(path: KeyPath) -> str:
    return PREFIX + "__".join(path).upper()


def _as_variable(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")
