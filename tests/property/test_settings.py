"""
Laws of the settings, for whatever an operator writes.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from worker.errors import ConfigInvalid
from worker.settings.keys import Leaf, dotted, leaves, nearest, node_at, root
from worker.settings.load import LoadedSettings, load_settings
from worker.settings.show import redacted_tree

NOWHERE = Path("config/no-such-file.toml")
ORIGINS = ["a.toml", "b.toml", "environment TOUCHSTONE__BATCH__SIZE", "--set"]

# No NUL: no process can be given one. No surrogates: those are the test of text that is not UTF-8.
argument_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
key_names = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=12)


def load(sets: Sequence[str] = (), environ: dict[str, str] | None = None) -> LoadedSettings:
    """
    The settings of the command line and the environment alone.
    """
    return load_settings(config=None, overlay=None, environ=environ or {}, sets=sets)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    Where the files of one law lie; each example writes them anew.
    """
    return tmp_path_factory.mktemp("settings")


@given(sizes=st.lists(st.none() | st.integers(1, 512), min_size=4, max_size=4))
def test_the_last_layer_that_speaks_wins(folder: Path, sizes: list[int | None]) -> None:
    """
    Whichever layers hold a key, the value and the origin are those of the last, and without any the default's.
    """
    files = [folder / "a.toml", folder / "b.toml"]
    for file, size in zip(files, sizes[:2], strict=True):
        file.write_text("" if size is None else f"[batch]\nsize = {size}\n", encoding="utf-8")
    loaded = load_settings(
        config=files[0],
        overlay=files[1],
        environ={} if sizes[2] is None else {"TOUCHSTONE__BATCH__SIZE": str(sizes[2])},
        sets=[] if sizes[3] is None else [f"batch.size={sizes[3]}"],
    )
    spoken = [(size, origin) for size, origin in zip(sizes, ORIGINS, strict=True) if size is not None]
    size, origin = spoken[-1] if spoken else (32, "default")

    assert size == loaded.settings.batch.size
    assert loaded.origins["batch.size"].endswith(origin)


@given(text=argument_text)
def test_a_text_setting_keeps_its_text(text: str) -> None:
    """
    ``7``, ``true`` and ``[1]`` are texts where a text is wanted; only what is quoted as in TOML loses its quotes.
    """
    assume(text[0] not in "\"' \t" and text.strip())

    assert load([f"kafka.group_id={text}"]).settings.kafka.group_id == text
    assert load(environ={"TOUCHSTONE__KAFKA__GROUP_ID": text}).settings.kafka.group_id == text


@given(
    section=st.sampled_from([(), ("kafka",), ("kafka", "topics"), ("flow",), ("fetch", "s3", "any")]), name=key_names
)
def test_every_unknown_key_is_refused_with_a_known_one(section: tuple[str, ...], name: str) -> None:
    """
    At any depth, the error names the key as written and a key that exists.
    """
    path = (*section, name)
    assume(node_at(path) is None)
    with pytest.raises(ConfigInvalid) as caught:
        load([f"{dotted(path)}=1"])
    known = {dotted(key).replace("<name>", "any") for key, _ in leaves(root())} | {
        "kafka.topics",
        "fetch.s3",
        *SECTIONS,
    }

    assert f"--set: {dotted(path)} is no setting; the nearest is " in str(caught.value)
    assert nearest(path).replace("<name>", "any") in known


SECTIONS = list(root().children)


@given(
    values=st.fixed_dictionaries(
        {},
        optional={
            "batch.size": st.integers(1, 512),
            "batch.deadline_ms": st.floats(0, 10_000),
            "redis.enabled": st.booleans(),
            "redis.namespace": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
            "decode.formats": st.lists(st.sampled_from(["JPEG", "PNG", "GIF"]), min_size=1),
            "flow.resume_below": st.floats(0, 1, exclude_min=True),
            "kafka.bootstrap_servers": st.from_regex(r"[a-z]{1,9}:[0-9]{1,5}", fullmatch=True),
        },
    )
)
def test_what_is_set_is_what_is_shown(values: dict[str, object]) -> None:
    """
    Any valid value comes back from ``config show`` as it was given, and every shown key has an origin.
    """
    loaded = load([f"{key}={json.dumps(value)}" for key, value in values.items()])
    shown = redacted_tree(loaded.settings)

    for key, value in values.items():
        section, name = key.split(".")
        assert shown[section][name] == value  # type: ignore[index, call-overload]  # a section is a dict
    assert set(values) == {key for key, origin in loaded.origins.items() if origin == "--set"}


@given(secret=st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=8).map("zq9".__add__))
def test_no_password_is_shown_or_said(secret: str) -> None:
    """
    Whatever characters a password has, neither ``config show`` nor an error prints it.
    """
    environ = {
        "TOUCHSTONE__KAFKA__SASL_PASSWORD": secret,
        "TOUCHSTONE__REDIS__URL": f"redis://:{secret}@cache.example:6379/0",
        "TOUCHSTONE__FETCH__S3__MEDIA__SECRET_ACCESS_KEY": secret,
    }
    loaded = load(["fetch.s3.media.access_key_id=id"], environ)
    with pytest.raises(ConfigInvalid) as caught:
        load(["batch.size=0"], environ)

    assert "zq9" not in json.dumps(redacted_tree(loaded.settings))
    assert "redis://***@cache.example:6379/0" in json.dumps(redacted_tree(loaded.settings))
    assert "zq9" not in str(caught.value)


@given(text=argument_text, key=st.sampled_from([dotted(path) for path, _ in leaves(root())]))
def test_no_text_breaks_the_loader(text: str, key: str) -> None:
    """
    Any text for any key is either taken or refused in lines that name the key's section.
    """
    key = key.replace("<name>", "any")
    try:
        loaded = load([f"{key}={text}"])
    except ConfigInvalid as invalid:
        lines = str(invalid).splitlines()
        assert len(lines) > 1
        assert all(key.split(".")[0] in line for line in lines[1:])
    else:
        assert loaded.origins[key] == "--set"


def test_every_key_says_what_it_expects() -> None:
    """
    No key of the tree is without words for its error.
    """
    for path, leaf in leaves(root()):
        assert isinstance(leaf, Leaf)
        assert leaf.expected, dotted(path)
