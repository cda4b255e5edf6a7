"""
The check of the port of the endpoints: it is free, or a worker that is well answers there.

Only GET requests are made, to this machine's own address. What a worker answers is ``worker/operation/serving.py``.
"""

import errno
import json
import socket
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Final

from worker.doctor.finding import Finding, failed, ok, skipped, warning
from worker.operation.serving import config_sha256
from worker.settings.operations import HttpSettings
from worker.settings.tree import Settings

PATIENCE_S: Final = 3.0
"""How long whoever holds the port may take for each step of an answer."""

MOST_BYTES: Final = 1 << 20
"""A worker's answer is far smaller."""

_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound: it is what may be configured


@dataclass(frozen=True, slots=True)
class _Found:
    """
    What a GET was answered with; ``said`` is empty where that was no JSON object.
    """

    status: int
    said: dict[str, object]


def http(settings: Settings) -> Finding:
    """
    The port of the endpoints can be listened on, and is let go at once; or a worker listens there that is well.
    """
    wanted = settings.http
    if not wanted.enabled:
        return skipped("http.enabled is false: neither health nor metrics are served")
    if wanted.port == 0:
        return ok(f"{wanted.host}: a free port is taken at each start")
    try:
        _listened_on(wanted)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _holder(settings)
        return failed(
            f"{wanted.host}:{wanted.port} cannot be listened on: {error.strerror or error}",
            "set http.host to an address of this machine, and http.port to one that this user may open",
        )
    return ok(f"{wanted.host}:{wanted.port} is free")


def _listened_on(wanted: HttpSettings) -> None:
    family = socket.AF_INET6 if ":" in wanted.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((wanted.host, wanted.port))


def _holder(settings: Settings) -> Finding:
    """
    Whether a worker holds the port, and how it does.
    """
    wanted = settings.http
    where = f"{wanted.host}:{wanted.port}"
    try:
        info = _asked(wanted, "/info")
        version, config = info.said.get("version"), info.said.get("config_sha256")
        if info.status != HTTPStatus.OK or not isinstance(version, str) or not isinstance(config, str):
            return _no_worker(where, f"answers GET /info with status {info.status}, and not as a worker does")
        live, ready = _asked(wanted, "/livez"), _asked(wanted, "/readyz")
    except (OSError, HTTPException) as fault:
        return _no_worker(where, f"does not answer GET /info ({type(fault).__name__})")
    same = "of these settings" if config == config_sha256(settings) else "of other settings"
    text = f"{where}: a worker answers there, touchstone {version}, {same}"
    if live.status != HTTPStatus.OK:
        return failed(f"{text}; it does not live: {_wrong_in(live)}", "look at its log, and restart it")
    if ready.status != HTTPStatus.OK:
        return warning(f"{text}; it is not ready: {_wrong_in(ready)}", "wait for it, or look at its log")
    return ok(f"{text}, ready")


def _no_worker(where: str, how: str) -> Finding:
    return failed(
        f"{where} is taken by something that {how}",
        "stop what holds the port (`ss -ltnp` names it), or set another http.port",
    )


def _asked(wanted: HttpSettings, path: str) -> _Found:
    # Straight to this machine, whatever proxy the environment names.
    connection = HTTPConnection(_ANYWHERE.get(wanted.host, wanted.host), wanted.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        return _Found(answer.status, _object_in(answer.read(MOST_BYTES)))
    finally:
        connection.close()


def _object_in(body: bytes) -> dict[str, object]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _wrong_in(health: _Found) -> str:
    checks = health.said.get("checks")
    if not isinstance(checks, dict):
        return f"status {health.status}"
    return "; ".join(f"{name}: {said}" for name, said in checks.items() if said != "ok") or f"status {health.status}"
