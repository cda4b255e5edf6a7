"""
What is said of everything that is wrong with the settings, and what is not.
"""

from pathlib import Path

import pytest

from tests.settings_layers import refused
from worker.errors import EXIT_USAGE, ConfigInvalid
from worker.settings.load import load_settings


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A working directory without a configuration of its own.
    """
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("kafka.gruop_id", "kafka.group_id"),
        ("kafka.topics.upload", "kafka.topics.uploads"),
        ("batch.max_in_flight", "flow.max_in_flight"),
        ("fetch.s3.media.regoin", "fetch.s3.media.region"),
        ("group_id", "kafka.group_id"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(key: str, meant: str) -> None:
    """
    Misspelt, in the wrong section, too deep or too shallow: the key that was meant is named, in every layer.
    """
    variable = "TOUCHSTONE__" + key.upper().replace(".", "__")

    said = f"{key} is no setting; the nearest is {meant}"
    assert refused(sets=[f"{key}=1"]) == [f"--set: {said}"]
    assert refused(config=f"{key} = 1") == [f"worker.toml: {said}"]
    assert refused(overlay=f"{key} = 1") == [f"local.toml: {said}"]
    assert refused(environ={variable: "1"}) == [f"environment {variable}: {said}"]


def test_a_misspelt_section_is_one_error() -> None:
    """
    A table under a name that is no section is not reported key by key; a single key is, down to the key that was meant.
    """
    assert refused(config="[kafak]\ngroup_id = 1\nother = 2") == [
        "worker.toml: kafak is no setting; the nearest is kafka"
    ]
    assert refused(sets=["batch.size.x=1"]) == ["--set: batch.size.x is no setting; the nearest is batch.size"]
    assert refused(sets=["kafak.gruop_id=x"]) == ["--set: kafak.gruop_id is no setting; the nearest is kafka.group_id"]


def test_a_secret_in_the_place_of_a_headers_name_is_not_repeated() -> None:
    """
    Whoever gave the whole header where its name belongs reads how long that was.
    """
    given = ['fetch.http.web.hosts=["cdn.example"]', "fetch.http.web.value=x", "fetch.http.web.header=X-Key: s3cr3t"]

    assert refused(sets=given) == [
        "--set: fetch.http.web.header is a text of 13 characters, expected a text that matches ^[A-Za-z0-9-]{1,64}$"
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("kafka.bootstrap_servers=me:s3cr3t@a:9092,b:9092", "bootstrap_servers takes HOST:PORT only"),
        ("kafka.bootstrap_servers=SASL_SSL://me:s3cr3t@a:9092", "bootstrap_servers takes HOST:PORT only"),
        ("http.port=me:s3cr3t@a:9092", 'http.port is "***@a:9092", expected a whole number'),
        ('fetch.allowed_hosts=["me:s3cr3t@cdn.example"]', '["***@cdn.example"], expected'),
    ],
)
def test_a_password_before_a_host_is_not_repeated(given: str, said: str) -> None:
    """
    It is refused where it has no meaning; what is said of it names the host.
    """
    (line,) = refused(sets=[given])

    assert said in line
    assert "s3cr3t" not in line


def test_everything_wrong_is_said_at_once() -> None:
    """
    One line for each error of each layer: where, which key, what was found, what is expected.
    """
    formats = 'each item one of "JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF"'
    lines = refused(
        config='[batch]\nsize = "many"\nsise = 1\n[decode]\nformats = ["PNG", "TIFF", "BMP"]\nperceptual_hash = 1',
        overlay="[kafka",
        environ={"TOUCHSTONE__DECODE__THREADS": "0", "TOUCHSTONE__REDIS": "redis://u:pw@host"},
        sets=["flow.resume_below=inf", "no pair", "log.level=loud", "batch.deadline_ms=1979-05-27"],
    )

    expected = [
        "worker.toml: batch.sise is no setting; the nearest is batch.size",
        "local.toml: is not TOML: Expected ']' at the end of a table declaration (at end of document)",
        "environment TOUCHSTONE__REDIS: redis is a section, found a single value; expected a table of its keys",
        "--set: found no KEY=VALUE, such as kafka.group_id=touchstone",
        "environment TOUCHSTONE__DECODE__THREADS: decode.threads is 0, expected a whole number, from 1 to 256",
        f'worker.toml: decode.formats is ["PNG", "TIFF", "BMP"], expected a list, {formats}',
        "worker.toml: decode.perceptual_hash is 1, expected true or false",
        'worker.toml: batch.size is "many", expected a whole number, from 1 to 4096',
        '--set: batch.deadline_ms is "1979-05-27", expected a number, from 0 to 10000',
        "--set: flow.resume_below is Infinity, expected a number, above 0 and at most 1",
        '--set: log.level is "loud", expected one of "debug", "info", "warning", "error"',
    ]

    assert sorted(expected) == sorted(lines)


def test_relations_name_the_layers_that_contradict_each_other() -> None:
    """
    Limits that do not fit are reported with both values and with where they came from, all of them.
    """
    lines = refused(
        config="[kafka]\nsession_timeout_s = 400\n[fetch]\ntotal_timeout_s = 1",
        sets=["kafka.max_poll_interval_s=350", "kafka.transaction_interval_s=20"],
    )

    expected = [
        "worker.toml, --set: [kafka] session_timeout_s (400.0) must be below max_poll_interval_s (350.0)",
        "--set: [kafka] transaction_interval_s (20.0) must be below transaction_timeout_s (15.0)",
        "worker.toml: [fetch] total_timeout_s (1.0) must not be below connect_timeout_s (2.0) or read_timeout_s (5.0)",
    ]

    assert expected == lines


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (
            ["kafka.topics.uploads=moderation-verdicts"],
            "[kafka.topics] uploads and verdicts must be different topics, found moderation-verdicts for each",
        ),
        (["bank.path=b", "bank.releases=c"], "[bank] path names one bank and releases a place of many"),
        (["bank.s3_profile=media"], "[bank] s3_profile is for releases in an s3:// place"),
        (["bank.releases=s3://b/c", "bank.s3_profile=x"], "bank.s3_profile names 'x', fetch.s3 has []"),
        (["embeddings.keep=file"], "[embeddings] keep = 'file' needs path"),
        (["embeddings.path=a"], "[embeddings] keep = 'none' does not use path"),
        (["shadow.enabled=true"], "[shadow] enabled needs a candidate"),
        (["shadow.bank_path=a", "shadow.judgement_path=b"], "[shadow] bank_path brings its own judgement"),
        (["tracing.endpoint=http://x"], "[tracing] endpoint is of no use with exporter 'none'"),
        (["kafka.security_protocol=SASL_SSL"], "[kafka] security_protocol SASL_SSL needs sasl_mechanism"),
        (["kafka.ssl_cafile=ca.pem"], "[kafka] security_protocol PLAINTEXT does not use ssl_cafile"),
        (["fetch.s3.a.access_key_id=x"], "[fetch.s3.a] access_key_id and secret_access_key go together"),
        (["fetch.s3_default_profile=x"], "[fetch] s3_default_profile names 'x', configured are []"),
        (
            ["encoder.checkpoint=w.safetensors"],
            "[encoder] checkpoint 'w.safetensors' is local and needs checkpoint_sha256",
        ),
        (["encoder.model=local-dir:w"], "[encoder] model 'local-dir:w' is local and needs checkpoint_sha256"),
        (["bank.ivf_probes=2000"], "[bank] ivf_probes (2000) must not exceed ivf_lists (1024)"),
        (["batch.size=513"], "batch.size (513) must not exceed flow.max_in_flight (512): a batch could never fill"),
        (["flow.max_in_flight_bytes=1048576"], "fetch.max_image_bytes (20971520) must not exceed flow.max_in_flight_b"),
        (["kafka.publish_timeout_s=299"], "fetch.total_timeout_s + kafka.publish_timeout_s (314.0) must be below"),
        (["kafka.static_membership=true"], "kafka.static_membership needs service.instance_id"),
    ],
)
def test_each_relation_is_checked(sets: list[str], said: str) -> None:
    """
    Every pair of settings that must agree is refused when it does not.
    """
    (line,) = refused(sets=sets)

    assert line.startswith(f"--set: {said}")


def test_sasl_needs_its_protocol_and_its_credentials() -> None:
    """
    Two contradictions in one section are two lines.
    """
    protocol, credentials = refused(sets=["kafka.sasl_mechanism=PLAIN"])

    assert protocol == "--set: [kafka] security_protocol PLAINTEXT does not use sasl_mechanism"
    assert credentials == "--set: [kafka] sasl_mechanism needs sasl_username and sasl_password"


def test_a_named_file_that_is_missing_is_an_error() -> None:
    """
    A file that one asked for is never silently left out; neither is one that cannot be read.
    """
    Path("latin.toml").write_bytes(b'[service]\nname = "\xe9"')
    with pytest.raises(ConfigInvalid) as caught:
        load_settings(config=Path("nowhere.toml"), overlay=Path("latin.toml"), environ={}, sets=[])

    lines = str(caught.value).splitlines()
    assert caught.value.exit_code == EXIT_USAGE
    assert lines[1].startswith("nowhere.toml: found no such file in ")
    assert lines[2] == "latin.toml: cannot be read as a text file (UnicodeDecodeError)"


@pytest.mark.parametrize(
    "sets",
    [
        ["kafka.sasl_password={a=HUNTER2}", "batch.size=x"],
        ["kafka.sasl_pasword=HUNTER2"],
        ["kafka.sasl_password:HUNTER2"],
        ["redis.url=redis://u:HUNTER2@host/0", "batch.size=x"],
        ["redis=redis://u:HUNTER2@host/0"],
        ["fetch.s3.a.secret_access_key=HUNTER2"],
        ["fetch.s3.a.secret_access_key={x='HUNTER2'}"],
        ["kafka.sasl_mechanism=PLAIN", "kafka.sasl_password=HUNTER2"],
    ],
)
def test_no_message_repeats_a_secret(sets: list[str]) -> None:
    """
    Whatever is wrong around a secret, its value is not in what is said.
    """
    assert "HUNTER2" not in "\n".join(refused(sets=sets))


def test_a_secret_of_the_wrong_kind_is_masked() -> None:
    """
    The line names key and expectation, and ``***`` for what was found.
    """
    assert refused(config="[kafka]\nsasl_password = 12345") == [
        "worker.toml: kafka.sasl_password is ***, expected a text"
    ]
    assert refused(config='[fetch.s3.a]\nendpoint_url = ["https://u:HUNTER2@host/path"]') == [
        'worker.toml: fetch.s3.a.endpoint_url is ["https://host/path"], expected a text'
    ]


def test_a_value_cannot_bring_a_second_key() -> None:
    """
    A text that holds more than a value of TOML is no value of TOML.
    """
    assert refused(sets=["redis.ttl_s=61\nother = 2"]) == [
        r'--set: redis.ttl_s is "61\nother = 2", expected a whole number, at least 60'
    ]


def test_text_that_is_not_utf8_is_refused() -> None:
    """
    Bytes that the operating system could not decode are an error, not a crash.
    """
    assert refused(environ={"TOUCHSTONE__SERVICE__NAME": "\udce9"}) == [
        "environment TOUCHSTONE__SERVICE__NAME: service.name holds bytes that are not UTF-8; expected text"
    ]


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("TOUCHSTONE_KAFKA__GROUP_ID", "TOUCHSTONE__KAFKA__GROUP_ID"),
        ("TOUCHSTONE_KAFKA__GROUPID", "TOUCHSTONE__KAFKA__GROUP_ID"),
        ("TOUCHSTONE_KAFKA__TOPICS__UPLOADS", "TOUCHSTONE__KAFKA__TOPICS__UPLOADS"),
    ],
)
def test_one_underscore_after_the_name_is_refused(variable: str, meant: str) -> None:
    """
    It names a section as only a setting does, and would otherwise be passed over; the value is not repeated.
    """
    assert refused(environ={variable: "secret"}) == [
        f"environment {variable}: is no setting and is not read; settings begin with TOUCHSTONE__, as {meant}"
    ]
