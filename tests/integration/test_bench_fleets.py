"""
``touchstone bench scaling``, ``sweep`` and ``cache`` with real workers on a real Kafka and a real Redis.
"""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from worker.cli.bench_cache import cache
from worker.cli.bench_scaling import scaling
from worker.cli.bench_sweep import sweep
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
    ran = CliRunner().invoke(scaling, ["--workers", "1,2", "--uploads", "24", "--partitions-per-worker", "1", *options])

    assert ran.exception is None, ran.output
    teams = json.loads(ran.stdout)["teams"]
    assert [(1, 1), (2, 2)] == [(team["workers"], team["partitions"]) for team in teams]
    one, two = (team["images_per_s"] for team in teams)
    assert [team["share_of_linear"] for team in teams] == [pytest.approx(1), pytest.approx(two / (2 * one), rel=1e-4)]


def test_sizes_through_a_whole_worker(options: list[str], tmp_path: Path) -> None:
    """
    The size of micro-batch and that of image have their rates and CPU times, and the picture is written.
    """
    drawn = tmp_path / "sweep.svg"
    # Of one size, and the configured one: a single worker, for each takes seconds to start.
    sizes = ["--batch-sizes", "4", "--set", "batch.size=4", "--image-sizes", "0.2mp", "--uploads", "48"]
    ran = CliRunner().invoke(sweep, [*sizes, "--plot", str(drawn), *options])

    assert ran.exception is None, ran.output
    told = json.loads(ran.stdout)
    assert [4] == [one["batch_size"] for one in told["batch_sizes"]]
    assert [0.196608] == [one["megapixels"] for one in told["image_sizes"]]
    assert all(one["images_per_s"] > 0 < one["cpu_ms_per_upload"] for one in told["batch_sizes"] + told["image_sizes"])
    assert drawn.read_text().rstrip().endswith("</svg>")


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
        (scaling, ["--partitions-per-worker", "0"], "at least 1"),
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
