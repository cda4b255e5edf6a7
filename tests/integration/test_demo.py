"""
``touchstone demo`` and ``touchstone dev`` as a newcomer runs them, and what they leave behind: nothing.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from redis import Redis

from tests.platform_side import SILENT, small_jpeg
from tests.servers import eventually
from worker.dev.kafka_server import EmbeddedKafka
from worker.dev.servers import KafkaAt, RedisAt

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(400)]

DEADLINE_S = 300.0
FIELDS = ["kafka", "redis", "uploads", "verdicts", "decided", "abstained", "failed", "dead_letters", "wall_s"]


def environ_with(temporary: Path, **servers: str) -> dict[str, str]:
    """
    Our own environment with these servers, or with none, and a folder for temporary files that nobody else uses.
    """
    ours = {name: value for name, value in os.environ.items() if name not in {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"}}
    return ours | {"TMPDIR": str(temporary)} | servers


def run_demo(*options: str, environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """
    The command, in a process of its own.
    """
    command = [sys.executable, "-m", "worker", "demo", "--json", *options]
    return subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False, timeout=DEADLINE_S, cwd=environ["TMPDIR"]
    )


def processes_below(folder: Path) -> list[int]:
    """
    The processes whose temporary files are in this folder: the command's own and whatever it started.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"TMPDIR={folder}".encode() in environment:
                found.append(int(entry.name))
    return found


def require_summary(demo: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """
    The one object on standard output, with exactly the promised fields, whose numbers add up.
    """
    assert demo.returncode == 0, demo.stderr
    assert len(demo.stdout.splitlines()) == 1
    summary: dict[str, Any] = json.loads(demo.stdout)
    counts = {name: value for name, value in summary.items() if isinstance(value, int)}

    assert list(summary) == FIELDS
    assert counts["uploads"] == counts["verdicts"] + counts["dead_letters"]
    assert counts["verdicts"] == counts["decided"] + counts["abstained"] + counts["failed"]
    assert isinstance(summary["wall_s"], float)
    return summary


def test_demo_brings_its_own_servers_and_takes_them_away(tmp_path: Path) -> None:
    """
    Without any server at hand the demo shows decided and failed verdicts and a dead letter, and leaves nothing behind.
    """
    demo = run_demo(environ=environ_with(tmp_path))
    summary = require_summary(demo)

    assert {"kind": "embedded", "version": EmbeddedKafka.version} == summary["kafka"]
    assert {"kind", "version"} == set(summary["redis"])
    assert "embedded" == summary["redis"]["kind"]
    assert {"decided", "failed", "dead_letters"} <= {name for name, value in summary.items() if value}
    assert "embedded" in demo.stderr
    assert "not accuracy" in demo.stderr
    assert eventually(lambda: processes_below(tmp_path) == [])
    assert list(tmp_path.iterdir()) == []


def test_demo_uses_the_servers_and_the_pictures_that_are_given(
    kafka: KafkaAt, redis_server: RedisAt, tmp_path: Path
) -> None:
    """
    On given servers, with a folder of one's own, each file gets its verdict, and all topics are gone afterwards.
    """
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, **SILENT})
    pictures, temporary = tmp_path / "pictures", tmp_path / "temporary"
    for folder in (pictures, pictures / "more", temporary):
        folder.mkdir()
    for number, name in enumerate(("one.jpg", "two.jpg", "more/three.jpg")):
        (pictures / name).write_bytes(small_jpeg(number))
    (pictures / "notes.txt").write_text("no picture")
    before = set(admin.list_topics().topics)
    environ = environ_with(temporary, KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap_servers, REDIS_URL=redis_server.url)
    demo = run_demo("--images", str(pictures), environ=environ)
    summary = require_summary(demo)

    assert {"kind": "given", "version": ".".join(kafka.version.split(".")[:2])} == summary["kafka"]
    assert {"kind": "given", "version": redis_server.version} == summary["redis"]
    assert [4, 4, 1, 0] == [summary[name] for name in ("uploads", "verdicts", "failed", "dead_letters")]
    assert "given" in demo.stderr
    assert eventually(lambda: {one for one in admin.list_topics().topics if "demo" in one} <= before)
    assert eventually(lambda: processes_below(temporary) == [])
    assert list(temporary.iterdir()) == []


def test_dev_says_what_to_export_and_ctrl_c_stops_both(tmp_path: Path) -> None:
    """
    What ``touchstone dev`` prints can be evaluated by a shell; SIGINT ends both servers and the command, with 0.
    """
    command = [sys.executable, "-m", "worker", "dev"]
    exports = {}
    with subprocess.Popen(command, env=environ_with(tmp_path), stdout=subprocess.PIPE, text=True) as dev:
        try:
            assert dev.stdout is not None
            for line in dev.stdout:
                if line.startswith("export "):
                    name, _, value = line.strip().removeprefix("export ").partition("=")
                    exports[name] = value
                if "Ctrl-C" in line:
                    break
            admin = AdminClient({"bootstrap.servers": exports["KAFKA_BOOTSTRAP_SERVERS"], **SILENT})
            with Redis.from_url(exports["REDIS_URL"]) as client:
                answers = [bool(admin.list_topics(timeout=DEADLINE_S).brokers), client.ping()]
            dev.send_signal(signal.SIGINT)
            code = dev.wait(DEADLINE_S)
        finally:
            dev.kill()

    assert answers == [True, True]
    assert code == 0
    assert eventually(lambda: processes_below(tmp_path) == [])
    assert list(tmp_path.iterdir()) == []
