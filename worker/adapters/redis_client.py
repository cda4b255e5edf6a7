"""
How the Redis adapters connect: address, TLS, time-outs.

What is kept there is in ``redis_cache.py`` and its siblings; how much of an answer is read, and for how long, in
``redis_wire.py``; what answers mean, in ``redis_reading.py``.
"""

import re
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionPool, parse_url
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from worker.adapters.redis_wire import BOUNDED, BoundedParser
from worker.errors import ConfigInvalid
from worker.settings.tree import RedisSettings

_TLS_OPTION: Final = re.compile(r"ssl_[a-z_]{1,40}")
_URL_OPTIONS: Final = ("db", "username", "password")
"""What may stand in an address's query; redis-py lets all else there win over the settings, time-outs included."""
_NO_ADDRESS: Final = (
    "redis.url is no Redis address; write redis://, rediss:// or unix://, such as redis://localhost:6379/0"
)


def open_redis(settings: RedisSettings, *, raw: bool = True) -> Redis:
    """
    A client that connects when first asked; ``raw`` answers are as the server gave them, unread by redis-py.

    Its readings raise whatever an odd answer brings about, and leave the rest of a pipeline's answers on the connection
    to be taken for those to the next question. The time-out holds for sending a question, and for all of its answers.
    Raises ``ConfigInvalid`` for a URL that is none, and for a missing file.
    """
    found = _address(settings) | tls_options(settings)
    kind = found.pop("connection_class", Connection)
    pool = ConnectionPool(
        **found,
        connection_class=BOUNDED[kind],
        parser_class=BoundedParser,
        socket_connect_timeout=settings.connect_timeout_s,
        socket_timeout=settings.timeout_s,
        retry=Retry(NoBackoff(), 0),
        # RESP2 and no CLIENT SETINFO: a new connection costs no round trips before the first question.
        protocol=2,
        driver_info=None,
    )
    client = Redis.from_pool(pool)
    if raw:
        client.response_callbacks.clear()
    return client


def on_this_machine(settings: RedisSettings) -> bool:
    """
    Whether the address is one that other machines do not reach: a socket file, or the loopback interface.
    """
    parts = urlsplit(settings.url.get_secret_value())
    if parts.scheme == "unix" or parts.hostname in {None, "localhost"}:
        return True
    try:
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def tls_options(settings: RedisSettings) -> dict[str, Any]:
    """
    redis-py's arguments for TLS; none for an address without it. The certificate and its name are always checked.

    Raises ``ConfigInvalid`` for a file that does not exist, and for a URL that would change what is checked.
    """
    url = settings.url.get_secret_value()
    asked = [name for name, _ in parse_qsl(urlsplit(url).query) if _TLS_OPTION.fullmatch(name)]
    if asked:
        # redis-py lets the query win over every argument, ssl_cert_reqs=none included.
        raise ConfigInvalid(
            f"redis.url sets {asked[0]}; take it out of the URL and set redis.ssl_cafile, redis.ssl_certfile and "
            "redis.ssl_keyfile. The server's certificate is always checked"
        )
    if urlsplit(url).scheme != "rediss":
        return {}
    files = {
        "ssl_ca_certs": ("ssl_cafile", settings.ssl_cafile),
        "ssl_certfile": ("ssl_certfile", settings.ssl_certfile),
        "ssl_keyfile": ("ssl_keyfile", settings.ssl_keyfile),
    }
    for name, path in files.values():
        if path is not None and not path.is_file():
            raise ConfigInvalid(f"redis.{name} is {path}, which is no file; name the PEM file")
    password = settings.ssl_key_password
    options: dict[str, Any] = {argument: str(path) for argument, (_, path) in files.items() if path is not None}
    if password is not None:
        options["ssl_password"] = password.get_secret_value()
    return options | {"redis_connect_func": _settle}


def _settle(connection: Any) -> None:  # noqa: ANN401 - redis-py's connection, whichever it is
    """
    One round trip on a new TLS connection.

    A server of TLS 1.3 sends session tickets before its first answer. redis-py (8.1) takes bytes that wait on a
    connection nobody has asked anything for a mix-up, and gives the connection up.
    """
    connection.on_connect()
    connection.send_command("PING")
    # A user who may not PING has been answered all the same.
    with suppress(NoPermissionError):
        connection.read_response()


def _address(settings: RedisSettings) -> dict[str, Any]:
    """
    redis-py's reading of the address. Raises ``ConfigInvalid``, whose text holds none of it: it may hold a password.
    """
    url = settings.url.get_secret_value()
    try:
        found: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]  # redis-py
        parts = urlsplit(url)
        path = parts.path.replace("/", "")
        options = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError as error:
        # The text of the error may hold the URL, and the URL a password.
        raise ConfigInvalid(_NO_ADDRESS) from error
    if any(name not in _URL_OPTIONS and not _TLS_OPTION.fullmatch(name) for name in options):
        raise ConfigInvalid(
            f"redis.url sets other options than {', '.join(_URL_OPTIONS)}, which would win over the settings; take "
            "them out of the URL: time-outs are redis.connect_timeout_s and redis.timeout_s"
        )
    if parts.scheme != "unix" and path and not path.isdecimal():
        raise ConfigInvalid("redis.url names a database that is no number; write redis://host:6379/0")
    return found
