"""
``touchstone config show``: what is in effect, for people and for machines, without a secret.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.recorded_log import log_undone
from worker.cli.config import config
from worker.errors import ConfigInvalid
from worker.settings.load import LoadedSettings
from worker.settings.show import redacted_tree
from worker.settings.tree import KafkaSettings, Settings

SECRETS = ["servers-pass", "kafka-pass", "redis-pass", "redis-user", "redis-query", "s3-secret", "endpoint-pass"]
WITH_SECRETS = [
    "kafka.security_protocol=SASL_SSL",
    "kafka.sasl_mechanism=PLAIN",
    "kafka.sasl_username=worker",
    "kafka.sasl_password=kafka-pass",
    "kafka.group_id=me:servers-pass@kafka.example:9092",
    "redis.url=rediss://redis-user:redis-pass@cache.example:6380/2?password=redis-query",
    "fetch.s3.media.access_key_id=key-id",
    "fetch.s3.media.secret_access_key=s3-secret",
    "fetch.s3.media.endpoint_url=https://me:endpoint-pass@s3.example:9000",
]


@pytest.fixture(autouse=True)
def own_log_and_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    An empty working directory; what the command does to the process's log is undone.
    """
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    with log_undone():
        yield


def show(*arguments: str, sets: list[str] | None = None) -> Result:
    """
    What the command prints.
    """
    options = [part for one in sets or [] for part in ("--set", one)]
    return CliRunner().invoke(config, ["show", *arguments, *options], standalone_mode=False)


def test_json_is_one_object_with_values_origins_and_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A machine reads nested settings, the origin of each by its dotted key, and the digest.
    """
    monkeypatch.setenv("TOUCHSTONE__KAFKA__GROUP_ID", "mine")
    shown = json.loads(show("--json", sets=["batch.size=3"]).stdout)

    assert set(shown) == {"settings", "origins", "digest"}
    assert shown["settings"]["kafka"]["group_id"] == "mine"
    assert shown["settings"]["kafka"]["topics"]["uploads"] == "image-uploads"
    assert shown["settings"]["fetch"]["s3"] == {}
    assert shown["settings"]["encoder"]["checkpoint"] is None
    assert shown["origins"]["kafka.group_id"] == "environment TOUCHSTONE__KAFKA__GROUP_ID"
    assert shown["origins"]["batch.size"] == "--set"
    assert shown["origins"]["fetch.s3"] == "default"
    assert len(shown["digest"]) == 64


def test_the_table_has_every_setting_whole() -> None:
    """
    A person reads key, value and origin on one line each, nothing cut, even in a pipe.
    """
    path = "/srv/" + "a" * 150
    lines = show(sets=[f"bank.path={path}"]).stdout.splitlines()
    rows = {line.split()[0]: line for line in lines if line}

    assert rows["bank.path"].split() == ["bank.path", path, "--set"]
    assert rows["decode.formats"].split("   ")[-1].strip() == "default"
    assert '["JPEG", "PNG", "WEBP", "GIF", "AVIF"]' in rows["decode.formats"]
    assert "(not set)" in rows["encoder.checkpoint"]
    assert lines[-1].startswith("digest ")


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_no_secret_is_shown(arguments: list[str]) -> None:
    """
    Passwords and keys are masked in both forms; where Redis and S3 are stays visible.
    """
    printed = show(*arguments, sets=WITH_SECRETS).stdout

    assert [secret for secret in SECRETS if secret in printed] == []
    assert "rediss://***@cache.example:6380/2?***" in printed
    assert "https://s3.example:9000" in printed
    assert "key-id" in printed


def test_a_redis_address_that_is_none_is_masked_whole() -> None:
    """
    A password pasted into the wrong place is not taken for a host.
    """
    tree = json.loads(show("--json", sets=["redis.url=just-a-password"]).stdout)["settings"]

    assert tree["redis"]["url"] == "***"


def test_what_is_not_set_is_not_masked() -> None:
    """
    A secret that is missing shows as missing: that is what one looks for.
    """
    assert redacted_tree(Settings())["kafka"]["sasl_password"] is None  # type: ignore[index, call-overload]  # a dict here


def test_files_are_named_as_they_were_given(tmp_path: Path) -> None:
    """
    ``--config`` and ``--overlay`` are read, and are the origins of what they hold.
    """
    (tmp_path / "a.toml").write_text("[batch]\nsize = 3\ndeadline_ms = 1.0\n", encoding="utf-8")
    (tmp_path / "b.toml").write_text("[batch]\nsize = 4\n", encoding="utf-8")
    shown = json.loads(show("--json", "--config", "a.toml", "--overlay", "b.toml").stdout)

    assert shown["settings"]["batch"] == {"size": 4, "deadline_ms": 1.0}
    assert shown["origins"]["batch.size"] == "b.toml"
    assert shown["origins"]["batch.deadline_ms"] == "a.toml"


def test_what_is_wrong_is_left_to_the_command_line() -> None:
    """
    The error passes through, with nothing printed.
    """
    result = show(sets=["batch.sise=3"])

    assert isinstance(result.exception, ConfigInvalid)
    assert result.stdout == ""


def test_loaded_settings_cannot_be_changed() -> None:
    """
    Neither the tree nor what was loaded takes a new value.
    """
    loaded = LoadedSettings(Settings(), {}, "")

    with pytest.raises(AttributeError):
        loaded.digest = "x"  # type: ignore[misc]  # that is the test
    with pytest.raises(ValueError, match="frozen"):
        loaded.settings.kafka.group_id = "x"  # type: ignore[misc]  # that is the test


def test_an_error_of_the_tree_itself_repeats_no_value() -> None:
    """
    Even where the tree is built directly, a traceback does not carry what was given.
    """
    with pytest.raises(ValueError, match="sasl_password") as caught:
        KafkaSettings.model_validate({"sasl_password": 12345678})

    assert "12345678" not in str(caught.value)


def test_a_doubtful_variable_is_told_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One warning on stderr; what the command prints stays what it is.
    """
    monkeypatch.setenv("TOUCHSTONE_KAFKA_GROUP_ID", "mine")
    shown = show("--json")
    (line,) = map(json.loads, shown.stderr.splitlines())

    assert json.loads(shown.stdout)["origins"]["kafka.group_id"] == "default"
    assert ("settings.not_read", "warning") == (line["event"], line["level"])
    assert "as TOUCHSTONE__KAFKA__GROUP_ID" in line["problem"]
