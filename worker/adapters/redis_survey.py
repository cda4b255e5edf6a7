"""
What a Redis is and how it is set up, asked once; for ``touchstone doctor``. Only asks.
"""

import time
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from redis.exceptions import RedisError

from worker.adapters.redis_client import open_redis
from worker.errors import CannotStart
from worker.redaction import mask_url, redact_text
from worker.settings.tree import RedisSettings

PINGS: Final = 9


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """
    A Redis that answers. ``skew_s``: its clock less ours, as far as half a round trip tells.

    ``maxmemory_bytes`` is 0 without a limit; ``on_disk`` names how it persists, empty where it does not or where that
    cannot be asked.
    """

    version: str
    ping_s: float
    maxmemory_bytes: int
    maxmemory_policy: str
    on_disk: tuple[str, ...]
    skew_s: float


def survey_redis(settings: RedisSettings, *, timeout_s: float) -> RedisFacts:
    """
    What answers at the configured address. Raises ``CannotStart``, whose message never shows the address's password.
    """
    try:
        patient = settings.model_copy(update={"connect_timeout_s": timeout_s, "timeout_s": timeout_s})
        with open_redis(patient, raw=False) as client:
            client.ping()
            pings = [_seconds_of_ping(client) for _ in range(PINGS)]
            info: dict[str, Any] = client.info()
            before_s = time.time()
            seconds, microseconds = client.time()
            now_s = (before_s + time.time()) / 2
            on_disk = _persistence(client, info)
    except (RedisError, OSError, ValueError) as error:
        raise CannotStart(
            f"No Redis answers at {mask_url(settings.url.get_secret_value())} ({type(error).__name__}: "
            f"{redact_text(str(error))})"
        ) from error
    return RedisFacts(
        version=str(info.get("redis_version", "unknown")),
        ping_s=median(pings),
        maxmemory_bytes=int(info.get("maxmemory", 0)),
        maxmemory_policy=str(info.get("maxmemory_policy", "unknown")),
        on_disk=on_disk,
        skew_s=seconds + microseconds / 1e6 - now_s,
    )


def _seconds_of_ping(client: Any) -> float:  # noqa: ANN401 - redis-py types its answers as promises, too
    began_s = time.perf_counter()
    client.ping()
    return time.perf_counter() - began_s


def _persistence(client: Any, info: dict[str, Any]) -> tuple[str, ...]:  # noqa: ANN401 - likewise
    append_only = ("append-only file",) if info.get("aof_enabled") else ()
    try:
        save = client.config_get("save").get("save", "")
    except RedisError:
        # Managed services refuse CONFIG; then only the append-only file is known of.
        return append_only
    return (*append_only, *(("snapshots",) if save else ()))
