"""
How the layers become settings: which wins, and how text becomes values.
"""

from pathlib import Path

import pytest

from tests.settings_layers import load, refused
from worker.settings.tree import Settings


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A working directory without a configuration of its own.
    """
    monkeypatch.chdir(tmp_path)


def test_without_layers_everything_is_default() -> None:
    """
    Nothing given means the defaults of the tree, and says so.
    """
    loaded = load()

    assert Settings() == loaded.settings
    assert {"default"} == set(loaded.origins.values())
    assert loaded.origins["kafka.topics.uploads"] == "default"


def test_each_layer_wins_over_those_before_it() -> None:
    """
    Defaults, file, overlay, conventional variable, our variable, command line: each key keeps the last, and names it.
    """
    loaded = load(
        config='service.name = "file"\nredis.ttl_s = 61\n[kafka]\ngroup_id = "file"\nbootstrap_servers = "file:1"',
        overlay='batch.size = 2\nredis.ttl_s = 62\n[kafka]\ngroup_id = "overlay"\nbootstrap_servers = "overlay:1"',
        environ={
            "KAFKA_BOOTSTRAP_SERVERS": "conventional:1",
            "REDIS_URL": "redis://conventional",
            "TOUCHSTONE__REDIS__URL": "redis://ours",
            "TOUCHSTONE__REDIS__TTL_S": "63",
        },
        sets=["redis.ttl_s=64", "redis.ttl_s=65"],
    )
    expected = {
        "service.name": "worker.toml",
        "kafka.group_id": "local.toml",
        "kafka.bootstrap_servers": "environment KAFKA_BOOTSTRAP_SERVERS",
        "redis.url": "environment TOUCHSTONE__REDIS__URL",
        "redis.ttl_s": "--set",
        "batch.size": "local.toml",
    }

    assert loaded.settings.service.name == "file"
    assert loaded.settings.kafka.group_id == "overlay"
    assert loaded.settings.kafka.bootstrap_servers == "conventional:1"
    assert loaded.settings.redis.url.get_secret_value() == "redis://ours"
    assert loaded.settings.redis.ttl_s == 65
    assert expected == {key: origin for key, origin in loaded.origins.items() if origin != "default"}


def test_the_file_of_the_working_directory_is_read_unasked() -> None:
    """
    ``config/worker.toml`` counts when it is there and no other file is named.
    """
    Path("config").mkdir()
    Path("config/worker.toml").write_text("[batch]\nsize = 3\n", encoding="utf-8")

    unasked, named = load(), load(config="[redis]\nttl_s = 61")

    assert (unasked.settings.batch.size, unasked.origins["batch.size"]) == (3, "config/worker.toml")
    assert named.settings.batch.size == Settings().batch.size


def test_text_becomes_what_the_setting_is() -> None:
    """
    Numbers, booleans and lists are read as TOML; what is a text stays the text that it is, quotes or not.
    """
    settings = load(
        environ={"TOUCHSTONE__REDIS__ENABLED": "false", "TOUCHSTONE__FETCH__MAX_IMAGE_BYTES": "1_000_000"},
        sets=[
            "kafka.group_id=7",
            'service.name="quoted"',
            'decode.formats=["PNG"]',
            "batch.deadline_ms=5",
            "bank.path=true",
            "kafka.bootstrap_servers=a:1,b:2",
            "redis.url=redis://h/0?a=b#c",
        ],
    ).settings

    assert settings.redis.enabled is False
    assert settings.fetch.max_image_bytes == 1_000_000
    assert settings.kafka.group_id == "7"
    assert settings.service.name == "quoted"
    assert settings.decode.formats == ("PNG",)
    assert settings.batch.deadline_ms == 5.0
    assert settings.bank.path == Path("true")
    assert settings.kafka.bootstrap_servers == "a:1,b:2"
    assert settings.redis.url.get_secret_value() == "redis://h/0?a=b#c"


def test_an_empty_value_unsets_what_is_optional() -> None:
    """
    An overlay or a variable can take an optional value back; what must have a value cannot be emptied.
    """
    loaded = load(config='[fetch]\nfile_root = "/srv"', environ={"TOUCHSTONE__FETCH__FILE_ROOT": ""})

    assert loaded.settings.fetch.file_root is None
    assert loaded.origins["fetch.file_root"] == "environment TOUCHSTONE__FETCH__FILE_ROOT"
    assert refused(sets=["policy.path="]) == ['--set: policy.path is "", expected a path']


def test_an_empty_conventional_variable_says_nothing() -> None:
    """
    ``REDIS_URL=`` in somebody's shell is no address.
    """
    assert load(environ={"REDIS_URL": "", "KAFKA_BOOTSTRAP_SERVERS": ""}).settings == Settings()


def test_a_section_may_be_set_as_a_whole() -> None:
    """
    An inline table sets the keys in it and leaves the others alone.
    """
    kafka = load(sets=['kafka={group_id="g", topics={uploads="u"}}']).settings.kafka

    assert (kafka.group_id, kafka.topics.uploads) == ("g", "u")
    assert kafka.topics.verdicts == Settings().kafka.topics.verdicts


def test_profiles_are_named_by_the_operator() -> None:
    """
    Any name makes an S3 profile; a variable means the profile that a file declares, but for case and punctuation.
    """
    loaded = load(
        config='[fetch.s3."Media.EU-1"]\nregion = "eu"\naccess_key_id = "id"\n[fetch.s3.plain]',
        environ={
            "TOUCHSTONE__FETCH__S3__MEDIA_EU_1__SECRET_ACCESS_KEY": "12345",
            "TOUCHSTONE__FETCH__S3__NEW__REGION": "us",
        },
        sets=['fetch.s3."Media.EU-1".buckets=["a"]'],
    )
    media = loaded.settings.fetch.s3["Media.EU-1"]

    assert set(loaded.settings.fetch.s3) == {"Media.EU-1", "plain", "new"}
    assert media.secret_access_key is not None
    assert media.secret_access_key.get_secret_value() == "12345"
    assert (media.region, media.buckets) == ("eu", ("a",))
    assert loaded.origins['fetch.s3."Media.EU-1".region'] == "worker.toml"
    assert loaded.origins["fetch.s3.plain.region"] == "default"
    assert "fetch.s3" not in loaded.origins


def test_a_value_that_is_replaced_is_not_judged() -> None:
    """
    What counts is the effective value; an unknown key stays an error all the same.
    """
    assert load(config="[batch]\nsize = -1", sets=["batch.size=3"]).settings.batch.size == 3


def test_the_digest_follows_the_values_and_not_their_origins() -> None:
    """
    Equal settings have equal digests wherever they came from; a secret does not enter, and cannot be guessed from it.
    """
    plain = load(sets=["batch.size=3"])

    assert load(config="[batch]\nsize = 3").digest == plain.digest
    assert load(sets=["batch.size=4"]).digest != plain.digest
    assert load(sets=["redis.url=redis://:a@h/0"]).digest == load(sets=["redis.url=redis://:b@h/0"]).digest
    assert load(sets=["redis.url=redis://:a@h/0"]).digest != load(sets=["redis.url=redis://:a@other/0"]).digest


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("TOUCHSTONE_KAFKA_GROUP_ID", "TOUCHSTONE__KAFKA__GROUP_ID"),
        ("TOUCHSTONE_KAFKA_GROUPID", "TOUCHSTONE__KAFKA__GROUP_ID"),
        ("TOUCHSTONE_HTTP_PORT", "TOUCHSTONE__HTTP__PORT"),
    ],
)
def test_a_variable_that_reads_like_a_setting_is_told(variable: str, meant: str) -> None:
    """
    It changes nothing, for another program may have set it, and the doubt names what may have been meant.
    """
    loaded = load(environ={variable: "secret"})

    assert Settings() == loaded.settings
    assert loaded.doubts == (
        f"environment {variable}: is no setting and is not read; settings begin with TOUCHSTONE__, as {meant}",
    )


@pytest.mark.parametrize(
    "variable",
    [
        "TOUCHSTONE_SERVICE_HOST",
        "TOUCHSTONE_SERVICE_PORT_METRICS",
        "TOUCHSTONE_PORT_9464_TCP_ADDR",
        "TOUCHSTONE_SERVICE_PORT_A__B",
        "TOUCHSTONE_REPLAY_UPLOADS",
        "TOUCHSTONE",
    ],
)
def test_what_others_set_is_not_told(variable: str) -> None:
    """
    Kubernetes sets a dozen variables for a service named touchstone, and tests have switches.
    """
    assert load(environ={variable: "tcp://10.0.0.1:9464"}).doubts == ()
