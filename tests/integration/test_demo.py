"""
``touchstone demo`` and ``touchstone dev`` as a newcomer runs them, and what they leave behind: nothing.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import KafkaAdminClient
from redis import Redis

from tests.platform_side import small_jpeg
from tests.servers import eventually
from worker.dev.kafka_server import EmbeddedKafka
from worker.dev.probes import ask_kafka
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


@dataclass(frozen=True, slots=True)
class Demo:
    """
    The command in a process of its own, with a folder for temporary files that nobody else uses.
    """

    process: "subprocess.Popen[str]"
    temporary: Path

    def summary(self) -> tuple[dict[str, Any], str]:
        """
        The one object on standard output, with exactly the promised fields, whose numbers add up; and what people read.
        """
        stdout, stderr = self.process.communicate(timeout=DEADLINE_S)

        assert self.process.returncode == 0, stderr
        assert len(stdout.splitlines()) == 1
        summary: dict[str, Any] = json.loads(stdout)
        assert list(summary) == FIELDS
        assert summary["uploads"] == summary["verdicts"] + summary["dead_letters"]
        assert summary["verdicts"] == summary["decided"] + summary["abstained"] + summary["failed"]
        assert isinstance(summary["wall_s"], float)
        return summary, stderr

    def require_nothing_left(self) -> None:
        """
        Neither a process of the demo's nor a temporary file is there any more.
        """
        assert eventually(lambda: processes_below(self.temporary) == [])
        assert list(self.temporary.iterdir()) == []


@contextmanager
def running_demo(temporary: Path, *options: str, **servers: str) -> Iterator[Demo]:
    """
    A demo that has begun.
    """
    temporary.mkdir()
    command = [sys.executable, "-m", "worker", "demo", "--json", *options]
    with subprocess.Popen(
        command,
        env=environ_with(temporary, **servers),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=temporary,
    ) as process:
        try:
            yield Demo(process, temporary)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def demos(
    kafka: KafkaAt, redis_server: RedisAt, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Demo, Demo]]:
    """
    One demo with servers of its own and one with given servers and pictures, side by side.
    """
    root = tmp_path_factory.mktemp("demo")
    pictures = root / "pictures"
    (pictures / "more").mkdir(parents=True)
    for number, name in enumerate(("one.jpg", "two.jpg", "more/three.jpg")):
        (pictures / name).write_bytes(small_jpeg(number))
    (pictures / "notes.txt").write_text("no picture")
    given = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "REDIS_URL": redis_server.url}
    with (
        running_demo(root / "alone") as alone,
        running_demo(root / "guest", "--images", str(pictures), **given) as guest,
    ):
        yield alone, guest


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


def test_demo_brings_its_own_servers_and_takes_them_away(demos: tuple[Demo, Demo]) -> None:
    """
    Without any server at hand the demo shows decided and failed verdicts and a dead letter, and leaves nothing behind.
    """
    alone, _ = demos
    summary, told = alone.summary()

    assert {"kind": "embedded", "version": EmbeddedKafka.version} == summary["kafka"]
    assert {"kind", "version"} == set(summary["redis"])
    assert "embedded" == summary["redis"]["kind"]
    assert {"decided", "failed", "dead_letters"} <= {name for name, value in summary.items() if value}
    assert "embedded" in told
    assert "model card" in " ".join(told.split())
    alone.require_nothing_left()


def test_demo_uses_the_servers_and_the_pictures_that_are_given(
    demos: tuple[Demo, Demo], kafka: KafkaAt, redis_server: RedisAt
) -> None:
    """
    On given servers, with a folder of one's own, each file gets its verdict, and its topics are gone afterwards.
    """
    _, guest = demos
    summary, told = guest.summary()
    with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)) as admin:
        gone = eventually(lambda: not any("touchstone-demo" in topic for topic in admin.list_topics()))

    assert {"kind": "given", "version": ".".join(kafka.version.split(".")[:2])} == summary["kafka"]
    assert {"kind": "given", "version": redis_server.version} == summary["redis"]
    assert [4, 4, 1, 0] == [summary[name] for name in ("uploads", "verdicts", "failed", "dead_letters")]
    assert "given" in told
    assert gone
    guest.require_nothing_left()


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
            version = ask_kafka(exports["KAFKA_BOOTSTRAP_SERVERS"], timeout_s=10).version
            with Redis.from_url(exports["REDIS_URL"]) as client:
                answered = client.ping()
            dev.send_signal(signal.SIGINT)
            code = dev.wait(DEADLINE_S)
        finally:
            dev.kill()

    assert EmbeddedKafka.version.startswith(version)
    assert answered
    assert code == 0
    assert eventually(lambda: processes_below(tmp_path) == [])
    assert list(tmp_path.iterdir()) == []


def test_dev_for_machines_says_one_object(tmp_path: Path) -> None:
    """
    ``touchstone dev --json`` prints a single line, once both answer; SIGTERM ends it with 0.
    """
    command = [sys.executable, "-m", "worker", "dev", "--json"]
    with subprocess.Popen(command, env=environ_with(tmp_path), stdout=subprocess.PIPE, text=True) as dev:
        try:
            assert dev.stdout is not None
            said = json.loads(dev.stdout.readline())
            version = ask_kafka(said["KAFKA_BOOTSTRAP_SERVERS"], timeout_s=10).version
            with Redis.from_url(said["REDIS_URL"]) as client:
                redis_version = client.info("server")["redis_version"]
            dev.send_signal(signal.SIGTERM)
            code = dev.wait(DEADLINE_S)
            rest = dev.stdout.read()
        finally:
            dev.kill()

    assert said["kafka_version"].startswith(version)
    assert redis_version == said["redis_version"]
    assert (0, "") == (code, rest)
