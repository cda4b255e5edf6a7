"""
The files in ``config/`` and the tree in the code say the same.
"""

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from worker.settings.keys import ANY_NAME, KeyPath, dotted, leaves, root
from worker.settings.load import load_settings
from worker.settings.show import flat_values
from worker.settings.tree import Settings

CONFIG = Path(__file__).parents[2] / "config"
SETTING = re.compile(r"^(?P<off># )?(?P<key>[a-z0-9_]+) = ")
COMMENTED = re.compile(r"^# (?=[a-z0-9_]+ = |\[[a-z0-9_.]+\]$)", re.MULTILINE)
EXAMPLE_PROFILE = "media"


@pytest.fixture(scope="module")
def text() -> str:
    """
    The file that operators read.
    """
    return (CONFIG / "worker.toml").read_text(encoding="utf-8")


def keys_of(tables: dict[str, object], at: KeyPath = ()) -> set[str]:
    """
    Every key of a parsed file; a profile's name is any name.
    """
    found: set[str] = set()
    for name, value in tables.items():
        path = (*at, ANY_NAME if at in {("fetch", "s3"), ("fetch", "http")} else name)
        found |= keys_of(value, path) if isinstance(value, dict) else {dotted(path)}
    return found


def test_the_file_holds_the_defaults_of_the_code() -> None:
    """
    Loading the file changes nothing: each of its values is the default, and none is unknown.
    """
    loaded = load_settings(config=CONFIG / "worker.toml", overlay=None, environ={}, sets=())

    assert Settings() == loaded.settings


def test_the_file_holds_every_key(text: str) -> None:
    """
    Each key of the tree stands in the file: with its value, or commented out where there is none by default.
    """
    known = {dotted(path) for path, _ in leaves(root())}
    without_value = {dotted(path) for path, value in flat_values(Settings()).items() if value is None}
    of_profiles = {key for key in known if ANY_NAME in key}
    active = keys_of(tomllib.loads(text))
    both = keys_of(tomllib.loads(COMMENTED.sub("", text)))

    assert len(known) > 60
    assert known == both
    assert without_value | of_profiles == both - active


def test_what_is_commented_out_may_be_used(tmp_path: Path, text: str) -> None:
    """
    With every commented key put in force, the file is valid, but for the choices that some of them are for.
    """
    file = tmp_path / "all.toml"
    file.write_text(COMMENTED.sub("", text), encoding="utf-8")
    chosen = [
        "kafka.security_protocol=SASL_SSL",
        "redis.url=rediss://localhost:6379/0",
        "redis.hmac_keys=",
        "bank.path=",
        "bank.quarantine_path=",
        "bank.releases=s3://banks/touchstone",
        "shadow.bank_path=",
        "embeddings.keep=file",
        "tracing.exporter=otlp",
    ]
    loaded = load_settings(config=file, overlay=None, environ={}, sets=chosen)

    assert {"default"} & set(loaded.origins.values()) == set()
    assert set(loaded.settings.fetch.s3) == {EXAMPLE_PROFILE}


def test_every_key_is_explained(text: str) -> None:
    """
    The line above each key, in force or commented out, is a comment of its own.
    """
    lines = text.splitlines()
    explained = 0
    for above, line in pairwise(lines):
        if SETTING.match(line):
            explained += 1
            assert above.startswith("# "), f"{line} has no comment above it"
            assert not SETTING.match(above), f"{line} has no comment of its own"

    assert len(list(leaves(root()))) == explained


def test_the_overlay_for_a_laptop_is_valid() -> None:
    """
    Laid over the file, it changes something, and each key in it differs or says that it means the laptop itself.
    """
    loaded = load_settings(config=CONFIG / "worker.toml", overlay=CONFIG / "local.toml", environ={}, sets=())
    from_overlay = {key for key, origin in loaded.origins.items() if origin.endswith("local.toml")}

    assert Settings() != loaded.settings
    assert {"kafka.bootstrap_servers", "redis.url", "encoder.model", "bank.path"} <= from_overlay
    assert loaded.settings.kafka.group_id != Settings().kafka.group_id
