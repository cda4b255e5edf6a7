"""
``touchstone bench e2e``: the worker and the naive loop as processes, on a real Kafka and a real Redis.
"""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from worker.cli.bench_e2e import e2e
from worker.cli.bench_stages import stages
from worker.dev.servers import KAFKA_VARIABLE, REDIS_VARIABLE, KafkaAt, RedisAt
from worker.dev.small_encoder import write_small_encoder

UPLOADS, CACHED = 40, 400
KEYS = {
    "images_per_s",
    "naive_images_per_s",
    "ratio_to_naive",
    "roofline_fraction",
    "overhead_ms_per_upload",
    "cached_per_s",
    "model",
    "backend",
    "cores",
    "machine",
}
WAY = ("parse", "fetch", "hash", "cache", "decode", "preprocess", "encode", "search", "decide", "serialise", "publish")
"""Of an upload, stage by stage; reading events and writing to the cache are measured as well."""

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(300)]


def test_one_object_with_every_key(
    kafka: KafkaAt, redis_server: RedisAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Rates above zero that agree with their ratio, costs that agree with the roofline, and cached uploads from Redis.
    """
    monkeypatch.setenv(KAFKA_VARIABLE, kafka.bootstrap_servers)
    monkeypatch.setenv(REDIS_VARIABLE, redis_server.url)
    small = write_small_encoder(tmp_path / "small")
    numbers = ["--uploads", str(UPLOADS), "--cached-uploads", str(CACHED), "--references", "200", "--rounds", "1"]
    named = ["--model", small.model, "--set", f"encoder.checkpoint_sha256={small.checkpoint_sha256}"]
    threads = ["--set", "encoder.threads=1", "--set", "decode.threads=1", "--set", "encoder.device=cpu"]

    result = CliRunner().invoke(
        e2e, [*numbers, *named, *threads, "--no-batched", "--work-folder", str(tmp_path / "work"), "--json"]
    )

    assert result.exception is None, result.output
    told = json.loads(result.stdout)
    assert set(told) >= KEYS
    assert told["ratio_to_naive"] == pytest.approx(told["images_per_s"] / told["naive_images_per_s"])
    together_s = sum(told["stage_costs_ms"].values()) / 1000
    assert told["roofline_fraction"] == pytest.approx(told["images_per_s"] * together_s / told["cores"])
    assert told["batched_naive_images_per_s"] is None
    assert told["steady_images_per_s"] is None
    assert told["memory_uploads"] == UPLOADS + 2 * CACHED
    assert 100 < told["memory_private_mib"] < told["memory_mib"]
    assert {"ratio_to_naive", "roofline_fraction", "overhead_ms_per_upload", "cached_per_s"} == {
        one["name"] for one in told["targets"]
    }
    assert told["cached_per_s"] > 0
    assert told["cached_from"] == {"hit redis": CACHED}
    assert (told["backend"], told["precision"], told["model"]) == ("torch", "fp32", "local-dir:small")
    assert told["machine"]["cores"] == told["cores"]


def test_stages_with_servers(
    kafka: KafkaAt, redis_server: RedisAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Every stage of the way is measured, and reading events, writing to the cache and fetching over the web as well.
    """
    monkeypatch.setenv(KAFKA_VARIABLE, kafka.bootstrap_servers)
    monkeypatch.setenv(REDIS_VARIABLE, redis_server.url)
    small = write_small_encoder(tmp_path / "small")
    named = ["--model", small.model, "--set", f"encoder.checkpoint_sha256={small.checkpoint_sha256}"]
    size = ["--references", "50", "--rounds", "1", "--set", "batch.size=4", "--image-size", "20kb"]

    result = CliRunner().invoke(stages, [*named, *size, "--work-folder", str(tmp_path / "work"), "--json"])

    assert result.exception is None, result.output
    figures = json.loads(result.stdout)["figures"]
    assert {f"{stage}_cpu" for stage in WAY} <= set(figures)
    assert {"consume_cpu", "cache_write_cpu"} <= set(figures)
    assert [name for name in figures if name.startswith("fetch_http") and figures[name]["median"] > 0]
