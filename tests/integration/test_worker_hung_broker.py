"""
A broker that is there and says nothing: a drain ends all the same.
"""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.platform_side import DEADLINE_S, inline, small_jpeg, upload_event
from tests.servers import eventually, hold_still
from tests.worker_rig import Instruments, WorkerRig
from worker.dev.kafka_server import EmbeddedKafka
from worker.dev.servers import RedisAt

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

DRAIN_S = 3.0
GRACE_S = 30.0
"""What ending may take beyond the drain on a busy machine; without the watch it takes publish_timeout_s, a minute."""


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_hanging_broker_does_not_hold_a_drain(
    delivery: str, redis_server: RedisAt, instruments: Instruments, tmp_path: Path
) -> None:
    """
    SIGTERM ends the worker within the drain's time and a little, with 4, whatever the consumer's thread waits for.
    """
    with (
        EmbeddedKafka() as own_kafka,
        WorkerRig(own_kafka.bootstrap_servers, redis_server.url, instruments, tmp_path) as rig,
    ):
        rig.configure(f"kafka.delivery={delivery}", f"flow.drain_timeout_s={DRAIN_S}")
        rig.create_topics(1)
        worker = rig.start("one")
        worker.until_started()
        rig.publish([upload_event(f"upload-{number}", inline(small_jpeg(number))) for number in range(50)])
        assert eventually(lambda: bool(worker.logged("batch.released")), deadline_s=DEADLINE_S), worker.text()
        hold_still(own_kafka.pid)
        try:
            began_s = time.monotonic()
            worker.signal(signal.SIGTERM)
            code = worker.wait()
            took_s = time.monotonic() - began_s
        finally:
            os.kill(own_kafka.pid, signal.SIGCONT)

        assert took_s < DRAIN_S + GRACE_S
        assert code in {0, 4}  # 0 where all was acknowledged before the broker fell silent
