"""
TLS, passwords and signing keys: which settings make sense together, and how they reach the client libraries.
"""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from tests.secured_rig import Files, certified, written
from worker.adapters.kafka_client import connection_config
from worker.adapters.redis_client import open_redis, tls_options
from worker.adapters.redis_wire import BOUNDED, BoundedParser
from worker.adapters.value_seal import ValueSeal, seal_of
from worker.errors import CannotStart, ConfigInvalid
from worker.settings.tree import KafkaSettings, RedisSettings

LONG_KEY = "k" * 32
SECRET = "Pa55word-of-the-key"  # noqa: S105 - a needle to search for


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """
    An authority, a certificate and its key, which is encrypted.
    """
    return written(certified(), tmp_path_factory.mktemp("tls"), key_password=SECRET)


def redis_of(**fields: object) -> RedisSettings:
    """
    Redis settings, as a file would give them.
    """
    return RedisSettings.model_validate({"url": "rediss://localhost:1/0", **fields})


def test_the_whole_of_mutual_tls_reaches_kafka(files: Files) -> None:
    """
    Authorities, certificate, key and its password, under kafka-python's names.
    """
    settings = KafkaSettings(
        security_protocol="SSL",
        ssl_cafile=files.cafile,
        ssl_certfile=files.certfile,
        ssl_keyfile=files.keyfile,
        ssl_key_password=SecretStr(SECRET),
    )
    config = connection_config(settings)

    assert {
        "ssl_cafile": str(files.cafile),
        "ssl_certfile": str(files.certfile),
        "ssl_keyfile": str(files.keyfile),
        "ssl_password": SECRET,
    } == {name: value for name, value in config.items() if name.startswith("ssl")}


def test_the_whole_of_mutual_tls_reaches_redis(files: Files) -> None:
    """
    The same for redis-py, which checks certificate and name by itself; an address without TLS gets nothing of it.
    """
    settings = redis_of(
        ssl_cafile=files.cafile, ssl_certfile=files.certfile, ssl_keyfile=files.keyfile, ssl_key_password=SECRET
    )
    arguments = open_redis(settings).connection_pool.connection_kwargs
    connection: Any = open_redis(settings).connection_pool.make_connection()

    assert (str(files.cafile), str(files.certfile), str(files.keyfile), SECRET) == (
        arguments["ssl_ca_certs"],
        arguments["ssl_certfile"],
        arguments["ssl_keyfile"],
        arguments["ssl_password"],
    )
    assert callable(arguments["redis_connect_func"])
    assert (True, "CERT_REQUIRED") == (connection.check_hostname, connection.cert_reqs.name)
    assert {} == tls_options(RedisSettings())


@pytest.mark.parametrize("name", ["ssl_cafile", "ssl_certfile", "ssl_keyfile"])
def test_a_file_that_is_not_there_is_named(name: str, files: Files, tmp_path: Path) -> None:
    """
    Both are refused before anybody is asked, and say which file.
    """
    given = {"ssl_certfile": files.certfile, "ssl_keyfile": files.keyfile, name: tmp_path / "gone.pem"}
    with pytest.raises(CannotStart, match=rf"kafka\.{name} is .*gone\.pem"):
        connection_config(KafkaSettings.model_validate({"security_protocol": "SSL", **given}))

    with pytest.raises(ConfigInvalid, match=rf"redis\.{name} is .*gone\.pem"):
        tls_options(redis_of(**given))


@pytest.mark.parametrize("query", ["ssl_cert_reqs=none", "ssl_check_hostname=false&db=1", "db=1&ssl_ca_certs=/x"])
def test_an_address_cannot_turn_checks_off(query: str) -> None:
    """
    redis-py lets the query of its address win over every argument, so that nothing of TLS may stand there.
    """
    with pytest.raises(ConfigInvalid, match=r"redis\.url sets ssl_.*always checked") as refused:
        open_redis(redis_of(url=f"rediss://:{SECRET}@localhost:1/0?{query}"))

    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "query", ["socket_timeout=1000", "db=1&decode_responses=true", "protocol=3", "max_connections="]
)
def test_an_address_cannot_change_what_is_set(query: str) -> None:
    """
    Nor may anything else stand there that would win over a setting: the time-outs, and how answers are read.
    """
    with pytest.raises(ConfigInvalid, match=r"other options than db, username, password.*redis\.timeout_s") as refused:
        open_redis(RedisSettings(url=SecretStr(f"redis://:{SECRET}@localhost:1/0?{query}")))

    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["redis://localhost:1/one", "localhost:1", "redis://localhost:port/0", "redis://x/0?db=a"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    """
    A database that is no number would be taken for the first one.
    """
    with pytest.raises(ConfigInvalid, match=r"redis\.url .*redis://"):
        open_redis(RedisSettings(url=SecretStr(url)))


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis://cache:6380/2", {"host": "cache", "port": 6380, "db": 2}),
        ("redis://me:it%40is@cache?db=3", {"username": "me", "password": "it@is", "db": 3}),
        ("unix:///run/redis.sock?db=1&password=it", {"path": "/run/redis.sock", "db": 1, "password": "it"}),
    ],
)
def test_an_address_says_where_and_who(url: str, found: dict[str, object]) -> None:
    """
    Host, port, database, user and password come from it; the time-outs from the settings.
    """
    arguments = open_redis(RedisSettings(url=SecretStr(url), timeout_s=0.25)).connection_pool.connection_kwargs

    assert found == {name: arguments[name] for name in found}
    assert 0.25 == arguments["socket_timeout"]


@pytest.mark.parametrize("url", ["redis://localhost/0", "rediss://localhost/0", "unix:///run/redis.sock"])
def test_every_connection_bounds_what_it_reads(url: str) -> None:
    """
    Over TCP, TLS and a socket file alike: time and size are our parser's affair.
    """
    connection: Any = open_redis(RedisSettings(url=SecretStr(url))).connection_pool.make_connection()

    assert isinstance(connection._parser, BoundedParser)
    assert type(connection) in BOUNDED.values()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ssl_certfile": "c"}, "go together"),
        ({"ssl_keyfile": "k"}, "go together"),
        ({"ssl_key_password": SECRET}, "needs ssl_keyfile"),
        ({"url": "redis://localhost", "ssl_cafile": "a"}, "not rediss:// does not use ssl_cafile"),
        ({"hmac_keys": "short"}, "a key of 5 characters, want at least 32"),
        ({"hmac_keys": f"{LONG_KEY},short"}, "a key of 5 characters"),
        ({"hmac_keys": " , "}, "holds no key"),
        ({"hmac_keys": LONG_KEY, "hmac_keys_file": "f"}, "give one of the two"),
    ],
)
def test_what_cannot_be_meant_of_redis_is_refused(fields: dict[str, object], said: str) -> None:
    """
    Halves of a pair, TLS without TLS, and keys that are too short are found when settings are read.
    """
    with pytest.raises(ValidationError) as refused:
        redis_of(**fields)

    assert said in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"security_protocol": "SSL", "ssl_certfile": "c"}, "go together"),
        ({"security_protocol": "SSL", "ssl_key_password": SECRET}, "needs ssl_keyfile"),
        ({"ssl_certfile": "c", "ssl_keyfile": "k"}, "PLAINTEXT does not use ssl_certfile"),
    ],
)
def test_what_cannot_be_meant_of_kafka_is_refused(fields: dict[str, object], said: str) -> None:
    """
    The same for Kafka.
    """
    with pytest.raises(ValidationError) as refused:
        KafkaSettings.model_validate(fields)

    assert said in str(refused.value)
    assert SECRET not in str(refused.value)


def test_keys_come_from_a_file_or_the_setting(tmp_path: Path) -> None:
    """
    One per line or with commas between: the first signs, and what any of them signed opens.
    """
    file = tmp_path / "keys"
    file.write_text(f"{LONG_KEY}\n{LONG_KEY.upper()}\n", encoding="ascii")
    file.chmod(0o600)
    from_file = seal_of(redis_of(hmac_keys_file=file))
    from_setting = seal_of(redis_of(hmac_keys=f"{LONG_KEY.upper()}, {LONG_KEY}"))
    signed = [from_file.sealed("at", b"value"), from_setting.sealed("at", b"value")]

    assert signed[0] != signed[1]
    assert [b"value"] * 2 == [from_file.opened("at", one) for one in signed]
    assert [b"value"] * 2 == [from_setting.opened("at", one) for one in signed]


@pytest.mark.parametrize("content", [b"", b"short-secret\n", b"\xff\xfe" * 40, None])
def test_a_file_without_good_keys_stops_the_start(content: bytes | None, tmp_path: Path) -> None:
    """
    A missing, empty, binary or weak file is named, and nothing of it is repeated.
    """
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
        file.chmod(0o600)
    with pytest.raises(ConfigInvalid, match=r"redis\.hmac_keys_file .*keys .*openssl rand") as refused:
        seal_of(redis_of(hmac_keys_file=file))

    assert "short-secret" not in str(refused.value)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o602])
def test_keys_that_others_can_read_or_change_stop_the_start(mode: int, tmp_path: Path) -> None:
    """
    Its owner may read and write, its group read, nobody else anything: such a key would sign for whoever has it.
    """
    file = tmp_path / "keys"
    file.write_text(LONG_KEY, encoding="ascii")
    file.chmod(mode)
    with pytest.raises(ConfigInvalid, match=rf"has mode {mode:04o}.*expected 0600 or 0440.*defaultMode") as refused:
        seal_of(redis_of(hmac_keys_file=file))

    assert LONG_KEY not in str(refused.value)


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_keys_that_the_group_can_read_are_good(mode: int, tmp_path: Path) -> None:
    """
    So are secrets mounted that a worker without root is to read.
    """
    file = tmp_path / "keys"
    file.write_text(LONG_KEY, encoding="ascii")
    file.chmod(mode)
    signed = ValueSeal([LONG_KEY.encode()]).sealed("at", b"value")

    assert b"value" == seal_of(redis_of(hmac_keys_file=file)).opened("at", signed)
