"""
SECURITY.md names only what is there: tests, settings, files.
"""

import re
from pathlib import Path

from tests.security_text import SECURITY, table
from worker.settings.keys import ANY_NAME, leaves, root

ROOT = SECURITY.parent
TEXT = SECURITY.read_text(encoding="utf-8")


def test_every_test_and_file_that_is_named_is_there() -> None:
    """
    A control whose test was renamed or removed is not shown by anything.
    """
    named = set(re.findall(r"`((?:tests|\.ci|config|requirements)[\w./-]*\.(?:py|toml|lock|md))`", TEXT))

    assert len(named) >= 25
    assert [] == sorted(name for name in named if not (ROOT / name).is_file())


def test_every_setting_that_is_named_is_one() -> None:
    """
    What an operator is told to set can be set.
    """
    sections = {path[0] for path, _ in leaves(root())}
    known = {".".join(path) for path, _ in leaves(root()) if ANY_NAME not in path}
    named = {
        name.split(" ")[0].removesuffix("-*")
        for name in re.findall(r"`([a-z_]+\.[a-z_.]+(?:-\*)?(?: = [^`]*)?)`", TEXT)
        if name.split(".")[0] in sections and Path(name).suffix != ".toml"
    }

    assert len(named) >= 15
    assert set() == named - known


def test_every_control_names_who_shows_it() -> None:
    """
    Each row of the controls ends with at least one test.
    """
    rows = table("What each control stops")

    assert len(rows) >= 15
    assert [] == [row[0] for row in rows if "tests/" not in row[-1]]
