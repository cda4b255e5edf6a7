"""
How the Redis adapters connect: address, TLS, time-outs. What is kept there is in ``redis_cache.py`` and its siblings.
"""

import re
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from worker.errors import ConfigInvalid
from worker.settings.tree import RedisSettings

_TLS_OPTION: Final = re.compile(r"ssl_[a-z_]{1,40}")


def open_redis(settings: RedisSettings) -> Redis:
    """
    A client that connects when first asked. Raises ``ConfigInvalid`` for a URL that is none, and for a missing file.
    """
    return Redis.from_url(
        _address(settings),
        socket_connect_timeout=settings.connect_timeout_s,
        socket_timeout=settings.timeout_s,
        retry=Retry(NoBackoff(), 0),
        # RESP2 and no CLIENT SETINFO: a new connection costs no round trips before the first question.
        protocol=2,
        driver_info=None,
        **tls_options(settings),
    )


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


def _address(settings: RedisSettings) -> str:
    url = settings.url.get_secret_value()
    try:
        Redis.from_url(url).close()
    except ValueError as error:
        # The text of the error may hold the URL, and the URL a password.
        raise ConfigInvalid(
            "redis.url is no Redis address; write redis://, rediss:// or unix://, such as redis://localhost:6379/0"
        ) from error
    return url
