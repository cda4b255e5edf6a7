"""
The Kafka that a contract suite runs against: once in memory, once for real.
"""

from collections.abc import Iterator

import pytest

from tests.kafka_worlds import MemoryWorld, RealWorld, World
from worker.dev.servers import KafkaAt


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.servers)])
def world(request: pytest.FixtureRequest, topic_name: str) -> Iterator[World]:
    """
    Fresh topics and a fresh group.
    """
    if request.param == "memory":
        yield MemoryWorld()
        return
    at: KafkaAt = request.getfixturevalue("kafka")
    with RealWorld(at.bootstrap_servers, topic_name) as real:
        yield real
