"""
How much quicker re-scoring is than a full replay, measured in one run with the shipped encoder and its fitted bank.

TOUCHSTONE_REPLAY_PICTURES asks for more pictures than usual; the rates are printed (``pytest -s``).
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bank_builders import a_picture
from tests.platform_side import inline, upload_event
from tests.replay_rig import decision_of, lines_of, position_of, replayed
from tests.worker_rig import POLICY, Instruments, WorkerRig
from worker.dev.servers import KafkaAt, RedisAt

PICTURES = int(os.environ.get("TOUCHSTONE_REPLAY_PICTURES", "600"))
SIZE = (1152, 864)
"""A megapixel, as uploads have; smaller ones are fetched and encoded faster, and judged no faster."""
TIMES = int(os.environ.get("TOUCHSTONE_REPLAY_TIMES", "10"))
"""
What is asserted; on a quiet machine 20 is exceeded (README), but other work slows the short run more than the long one.
"""

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(600 + PICTURES)]


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


def test_rescoring_is_many_times_as_fast(kafka: KafkaAt, redis_server: RedisAt, tmp_path: Path) -> None:
    """
    The first replay fetches and encodes every picture, the second judges the same uploads from their embeddings.

    Both are whole replays, with all that belongs to one but loading the model; the decisions are the same.
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
        with_all = replayed(rig, tmp_path / "again.jsonl")
        reader = rig.reader()
        assert reader.until_read(live, rig.cluster.ends(live))
        first = {position_of(verdict): decision_of(verdict) for verdict in reader.verdicts()}
    assert (full.code, with_all.code) == (0, 0), full.text + with_all.text
    second = {position_of(verdict): decision_of(verdict) for verdict in lines_of(tmp_path / "again.jsonl")}
    ratio = with_all.report["per_s"] / full.report["per_s"]
    print(  # noqa: T201 - the measurement is what this is for
        f"\nfull replay {full.report['per_s']:.1f}/s, from embeddings {with_all.report['per_s']:.1f}/s, "
        f"{ratio:.1f} times as fast ({PICTURES} pictures of {SIZE[0]} x {SIZE[1]})"
    )

    assert full.report["fetched"] == PICTURES
    assert with_all.report["from_embeddings"] == PICTURES
    assert first == second
    assert ratio >= TIMES
