"""
``touchstone bench scaling`` and ``touchstone bench cache`` with real workers on a real Kafka and a real Redis.
"""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from worker.cli.bench_cache import cache
from worker.cli.bench_scaling import scaling
from worker.dev.servers import KAFKA_VARIABLE, REDIS_VARIABLE, KafkaAt, RedisAt
from worker.dev.small_encoder import write_small_encoder

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def options(kafka: KafkaAt, redis_server: RedisAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """
    The tests' servers, and the small encoder with a small bank.
    """
    monkeypatch.setenv(KAFKA_VARIABLE, kafka.bootstrap_servers)
    monkeypatch.setenv(REDIS_VARIABLE, redis_server.url)
    small = write_small_encoder(tmp_path / "small")
    named = ["--model", small.model, "--set", f"encoder.checkpoint_sha256={small.checkpoint_sha256}"]
    return [*named, "--references", "50", "--rounds", "1", "--work-folder", str(tmp_path / "work"), "--json"]


def test_one_worker_and_two(options: list[str]) -> None:
    """
    Both teams answer all that they are given, and what is told of the second is its rate over twice the first's.
    """
    ran = CliRunner().invoke(scaling, ["--workers", "1,2", "--uploads", "24", "--partitions", "4", *options])

    assert ran.exception is None, ran.output
    told = json.loads(ran.stdout)
    one, two = told["images_per_s"]["1"], told["images_per_s"]["2"]
    assert told["share_of_linear"] == {"1": pytest.approx(1), "2": pytest.approx(two / (2 * one), rel=1e-4)}
    assert told["workers"] == [1, 2]


def test_known_bytes_among_the_uploads(options: list[str]) -> None:
    """
    Half of the uploads are known: as many as are new.
    """
    ran = CliRunner().invoke(cache, ["--shares", "0,0.5", "--new-uploads", "24", *options])

    assert ran.exception is None, ran.output
    told = json.loads(ran.stdout)
    rates = told["images_per_s"]
    assert told["gain"] == {"0": pytest.approx(1), "0.5": pytest.approx(rates["0.5"] / rates["0"], rel=1e-4)}
    assert told["found"] == {"0": {"miss": 24}, "0.5": {"hit redis": 24, "miss": 24}}


@pytest.mark.parametrize(
    ("command", "wrong", "named"),
    [
        (scaling, ["--workers", "1,1"], "different numbers"),
        (scaling, ["--workers", "1,9", "--partitions", "8"], "some would have none"),
        (cache, ["--shares", "0,1"], "below 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    command: click.Command, wrong: list[str], named: str, options: list[str]
) -> None:
    """
    Before anything is started, with what was expected.
    """
    ran = CliRunner().invoke(command, [*wrong, *options])

    assert ran.exit_code == 2
    assert named in ran.output
