"""
Does a server answer, and what is it? The only place of the development servers that touches a client library.

Both questions are asked through the clients that the worker itself uses, so that a "yes" means what the worker needs.
"""

import socket
from dataclasses import dataclass

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from redis import Redis
from redis.exceptions import RedisError

from worker.dev.embedded import NotReady

CONNECT_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class KafkaFacts:
    """
    ``version`` is what the broker's API versions betray, such as "4.3"; ``cluster_id`` tells clusters apart.
    """

    cluster_id: str
    version: str


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """
    ``version`` and ``process_id`` as INFO tells them.
    """

    version: str
    process_id: int


def ask_port(host: str, port: int) -> None:
    """
    Somebody accepts connections there; else ``NotReady``.
    """
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise NotReady(f"nobody listens on {host}:{port} ({error})") from error


def ask_kafka(bootstrap_servers: str, *, timeout_s: float) -> KafkaFacts:
    """
    A broker that is part of a working cluster answers, without TLS or password; else ``NotReady``.
    """
    try:
        with KafkaAdminClient(
            bootstrap_servers=bootstrap_servers,
            bootstrap_timeout_ms=round(timeout_s * 1000),
            request_timeout_ms=round(timeout_s * 1000),
        ) as admin:
            cluster = admin.describe_cluster()
            in_service = [broker["broker_id"] for broker in cluster["brokers"] if not broker.get("is_fenced")]
            if not in_service:
                raise NotReady(f"the cluster at {bootstrap_servers} has no broker in service")
            version = admin.get_broker_version_data(in_service[0]).broker_version
    except (KafkaError, OSError, ValueError) as error:
        raise NotReady(f"no Kafka broker answers at {bootstrap_servers} ({type(error).__name__}: {error})") from error
    return KafkaFacts(cluster_id=cluster["cluster_id"], version=".".join(map(str, version)))


def ask_redis(url: str, *, timeout_s: float) -> RedisFacts:
    """
    A Redis answers PING and INFO; else ``NotReady``, whose message never shows the password of ``url``.
    """
    try:
        with Redis.from_url(url, socket_connect_timeout=timeout_s, socket_timeout=timeout_s) as client:
            client.ping()
            info = client.info("server")
    except (RedisError, OSError, ValueError) as error:
        raise NotReady(f"no Redis answers at {without_secrets(url)} ({type(error).__name__}: {error})") from error
    return RedisFacts(version=str(info["redis_version"]), process_id=int(info["process_id"]))


def without_secrets(url: str) -> str:
    """
    ``url`` without user, password and query; also when it is no well-formed URL.
    """
    scheme, separator, rest = url.partition("?")[0].rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
