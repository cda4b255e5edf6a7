"""
How much quicker re-scoring is than a full replay, measured in one run with the shipped encoder and its fitted bank.

What is asserted is CPU time, which other work on the machine hardly changes; the rates by the clock are printed beside
it (``pytest -s``). TOUCHSTONE_REPLAY_PICTURES asks for more pictures than usual.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bank_builders import a_picture
from tests.cpu_times import cpu_s_of
from tests.platform_side import inline, upload_event
from tests.replay_rig import decision_of, lines_of, position_of, replayed
from tests.worker_rig import POLICY, Instruments, WorkerRig
from worker.dev.servers import KafkaAt, RedisAt
from worker.flow.loop import Loop, LoopReport

PICTURES = int(os.environ.get("TOUCHSTONE_REPLAY_PICTURES", "600"))
SIZE = (1152, 864)
"""A megapixel, as uploads have; smaller ones are fetched and encoded faster, and judged no faster."""
TIMES = 20
AGAIN = 3
"""Attempts of the short replay, of which the best counts: a second of noise beside it is most of it."""


pytestmark = [pytest.mark.alone, pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(600 + PICTURES)]


@dataclass(frozen=True, slots=True)
class Shipped(Instruments):
    """
    The encoder and the bank that ship, on one thread of the CPU.
    """

    def sets(self) -> list[str]:
        """
        Only the policy and the device: the rest is the default.
        """
        return ["encoder.device=cpu", "encoder.threads=1", f"policy.path={json.dumps(str(POLICY))}"]


def spent_s() -> float:
    """
    CPU seconds of this process so far, of the children that it has waited for, and of the decoders that live.
    """
    reaped = os.times()
    return time.process_time() + reaped.children_user + reaped.children_system + cpu_s_of(living_decoders())


def living_decoders() -> Iterator[int]:
    """
    The children of this process that decode.
    """
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text(encoding="ascii").split():
            with suppress(FileNotFoundError, ProcessLookupError):
                if b"worker.decoding" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    yield int(pid)


@pytest.fixture
def cpu_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """
    The CPU seconds of every loop that runs in this process, one after the other, its decoder processes counted in.
    """
    measured: list[float] = []
    run = Loop.run

    def timed(loop: Loop) -> LoopReport:
        began_s = spent_s()
        try:
            return run(loop)
        finally:
            measured.append(spent_s() - began_s)

    monkeypatch.setattr(Loop, "run", timed)
    return measured


def test_rescoring_is_many_times_as_fast(
    kafka: KafkaAt, redis_server: RedisAt, tmp_path: Path, cpu_s: list[float]
) -> None:
    """
    The first replay fetches and encodes every picture, the second judges the same uploads from their embeddings.

    Both are whole replays, measured from the first upload to the last; the decisions are the same.
    """
    shipped = Shipped("starter", "", Path())
    with WorkerRig(kafka.bootstrap_servers, redis_server.url, shipped, tmp_path) as rig:
        rig.create_topics(4)
        rig.publish(
            upload_event(f"post/{number}", inline(a_picture(number, size=SIZE, name="JPEG")))
            for number in range(PICTURES)
        )
        live = rig.settings.kafka.topics.verdicts
        full = replayed(rig, live, "--promote", "--write-cache")
        again = [replayed(rig, tmp_path / f"again-{number}.jsonl") for number in range(AGAIN)]
        reader = rig.reader()
        assert reader.until_read(live, rig.cluster.ends(live))
        first = {position_of(verdict): decision_of(verdict) for verdict in reader.verdicts()}
    for one in (full, *again):
        assert one.code == 0, one.text
    second = {position_of(verdict): decision_of(verdict) for verdict in lines_of(tmp_path / "again-0.jsonl")}
    full_cpu_s, again_cpu_s = cpu_s[0], min(cpu_s[1:])
    with_all = max(again, key=lambda ended: ended.report["per_s"])
    told = {"full replay": (full, full_cpu_s), "from embeddings": (with_all, again_cpu_s)}
    print(f"\n{PICTURES} pictures of {SIZE[0]} x {SIZE[1]}")  # noqa: T201 - the measurement is what this is for
    for name, (ended, took_s) in told.items():
        print(f"{name}: {ended.report['per_s']:.1f}/s, {took_s:.2f} s CPU")  # noqa: T201 - likewise
    by_the_clock, by_cpu = with_all.report["per_s"] / full.report["per_s"], full_cpu_s / again_cpu_s
    print(f"{by_the_clock:.1f} times as fast by the clock, {by_cpu:.1f} times by CPU time")  # noqa: T201 - likewise

    assert full.report["fetched"] == PICTURES
    assert [PICTURES] * AGAIN == [one.report["from_embeddings"] for one in again]
    assert first == second
    # Other work on the machine is in the time by the clock, which is therefore at most what it should be.
    assert max(by_the_clock, by_cpu) >= TIMES
