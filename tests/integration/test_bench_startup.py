"""
``touchstone bench startup`` on a real Kafka and a real Redis, with the small encoder.
"""

from pathlib import Path

import pytest

from tests.command_line import Touchstone, command_line
from tests.worker_rig import Instruments
from worker.dev.servers import KAFKA_VARIABLE, REDIS_VARIABLE, KafkaAt, RedisAt

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Touchstone:
    """
    Runs ``touchstone bench startup ...`` in an empty folder.
    """
    monkeypatch.chdir(tmp_path)
    return command_line(monkeypatch, capsys, "bench", "startup", "--json", "--work-folder", str(tmp_path))


def test_a_start_is_measured_from_its_beginning_to_ready(
    kafka: KafkaAt,
    redis_server: RedisAt,
    instruments: Instruments,
    bench: Touchstone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Every phase is told and none lasts longer than the whole; memory is that of a process that holds torch.
    """
    monkeypatch.setenv(KAFKA_VARIABLE, kafka.bootstrap_servers)
    monkeypatch.setenv(REDIS_VARIABLE, redis_server.url)
    words = [
        word for one in instruments.sets() if not one.startswith(("encoder.model", "bank.")) for word in ("--set", one)
    ]
    said = bench("--model", instruments.model, "--references", 60, "--rounds", 1, "--uploads", 4, *words)
    assert (0, "") == (said.code, said.err)
    found = said.json
    seconds = {name: one["median"] for name, one in found["figures"].items() if one["unit"] == "s"}

    assert {
        f"phase {name}" for name in ("bank", "encoder", "index", "probe", "canaries", "producer", "consumer")
    } < set(seconds)
    assert 0 < seconds["own code imported"] < seconds["loaded, loop begins"] < seconds["ready"]
    assert all(value < seconds["ready"] for name, value in seconds.items() if name.startswith("phase"))
    assert found["ready_s"] == round(seconds["ready"], 3)
    assert found["within_target"] == (found["ready_s"] <= found["target_s"])
    assert (60, 4, 10.0) == (found["references"], found["uploads"], found["target_s"])
    assert 200 < found["memory_mib"] < 4000
