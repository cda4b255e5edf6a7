"""
How a worker ends when something is wrong, before it starts or while it runs: its exit code, and its last words.
"""

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.platform_side import DEADLINE_S, small_jpeg, upload_event
from tests.scripted_web import Answer, answer, scripted_web
from tests.servers import eventually
from tests.worker_rig import START_DEADLINE_S, Instruments, WorkerRig
from worker.dev.kafka_server import EmbeddedKafka
from worker.dev.servers import RedisAt
from worker.dev.small_encoder import write_small_encoder

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(400)]

TOLD = re.compile(r"^touchstone: ", re.MULTILINE)

LEFT_BEHIND = """
import threading

import click
import torch

from worker import cli
from worker.errors import BankInvalid
from worker.flow.crew import Crew

inside = threading.Event()
layers = torch.nn.Sequential(*[torch.nn.Linear(1024, 1024) for _ in range(8)])
pictures = torch.zeros(256, 1024)


def encode():
    with torch.inference_mode():
        while True:
            layers(pictures)
            inside.set()


@click.command()
def breaks():
    crew = Crew()
    for number in range(2):
        crew.start(f"encode-{number}", encode)
    inside.wait()
    raise BankInvalid("as it should be")


cli.touchstone = breaks
cli.main()
"""


def test_what_is_missing_or_does_not_fit_is_told_before_anything_is_consumed(
    new_rig: Callable[..., WorkerRig], tmp_path: Path
) -> None:
    """
    Without its topics, with another encoder's bank or with other weights than declared, the worker leaves with 3.

    Each message says what was found and what to do. The three workers load side by side.
    """
    other = write_small_encoder(tmp_path / "other", seed=7)
    nowhere, here = new_rig(), new_rig().create_topics(1)
    endings = {
        "has no topic": nowhere.start("topics"),
        "bank": here.start(
            "bank", f"encoder.model=local-dir:{other.folder}", f"encoder.checkpoint_sha256={other.checkpoint_sha256}"
        ),
        "sha256": here.start("weights", f"encoder.checkpoint_sha256={'0' * 64}"),
    }
    codes = {part: worker.wait(START_DEADLINE_S) for part, worker in endings.items()}
    texts = {part: TOLD.split(worker.text())[-1] for part, worker in endings.items()}

    assert dict.fromkeys(endings, 3) == codes
    assert "`touchstone topics apply`" in texts["has no topic"]
    assert all(part in text for part, text in texts.items()), texts
    assert here.cluster.committed() == {}


def test_wrong_configuration_is_told_at_once(new_rig: Callable[..., WorkerRig]) -> None:
    """
    A key that is none and limits that contradict each other end with 2, all of them named, the nearest key beside.
    """
    worker = new_rig().start("one", "kafka.grop_id=x", "batch.size=600", "flow.max_in_flight=500")

    assert worker.wait() == 2
    assert "kafka.grop_id is no setting; the nearest is kafka.group_id" in worker.text()
    assert "batch.size" in worker.text()


def test_broker_that_stays_away_ends_the_worker_uncommitted(
    redis_server: RedisAt, instruments: Instruments, tmp_path: Path
) -> None:
    """
    An outcome that is not acknowledged in time ends the worker with 4, and the message says which; none is committed.
    """
    gate = threading.Event()

    def when_open() -> Iterable[bytes]:
        if gate.wait(DEADLINE_S):
            yield from answer(200, small_jpeg(1)).parts()

    with (
        EmbeddedKafka() as own_kafka,
        WorkerRig(own_kafka.bootstrap_servers, redis_server.url, instruments, tmp_path) as rig,
        scripted_web() as web,
    ):
        rig.configure("kafka.publish_timeout_s=2", "fetch.allow_http=true", "fetch.allow_private_addresses=true")
        rig.create_topics(1)
        worker = rig.start("one")
        worker.until_started()
        web.routes["/held.jpg"] = Answer(when_open)
        held = {"kind": "https", "url": web.url("/held.jpg", host="127.0.0.1")}
        rig.publish([upload_event("held", held)])
        assert eventually(lambda: len(web.asked) == 1, deadline_s=DEADLINE_S), worker.text()
        own_kafka.stop()
        gate.set()
        code = worker.wait()
        own_kafka.start()

        assert code == 4
        assert f"{rig.settings.kafka.topics.uploads}-0 offset 0 was not acknowledged" in worker.text()
        assert rig.cluster.committed() == {}
        assert rig.cluster.ends(rig.settings.kafka.topics.verdicts) == {0: 0}


def test_thread_left_behind_in_the_encoder_does_not_change_the_exit_code(tmp_path: Path) -> None:
    """
    Threads that are inside torch when all is over do not abort the process, and the message is told.
    """
    ended = subprocess.run(
        [sys.executable, "-c", LEFT_BEHIND], capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )

    assert (3, "touchstone: as it should be\n") == (ended.returncode, ended.stderr)
