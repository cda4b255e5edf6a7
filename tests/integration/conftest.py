"""
What the tests of whole workers share: one small encoder with its bank, and rigs on the session's servers.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.real_images_run import RealRun, real_instruments, run_on_real_images
from tests.worker_rig import Instruments, WorkerRig, small_instruments
from worker.dev.servers import KafkaAt, RedisAt


@pytest.fixture(scope="session")
def instruments(tmp_path_factory: pytest.TempPathFactory) -> Instruments:
    """
    A small encoder and its bank.
    """
    return small_instruments(tmp_path_factory.mktemp("instruments"))


@pytest.fixture
def new_rig(
    kafka: KafkaAt, redis_server: RedisAt, instruments: Instruments, tmp_path: Path
) -> Iterator[Callable[..., WorkerRig]]:
    """
    Makes rigs, on the session's servers unless told otherwise; they end with the test.
    """
    with ExitStack() as stack:

        def make(*, redis_url: str = redis_server.url, bootstrap_servers: str = kafka.bootstrap_servers) -> WorkerRig:
            return stack.enter_context(WorkerRig(bootstrap_servers, redis_url, instruments, tmp_path))

        yield make


@pytest.fixture(scope="session")
def real_run(
    kafka: KafkaAt, redis_server: RedisAt, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> RealRun:
    """
    What became of the field's real images, through Kafka and through scan.
    """
    folder = tmp_path_factory.mktemp("real-images")
    data = shared_data.resolve()
    return run_on_real_images((kafka, redis_server), real_instruments(folder, data), folder, data)
