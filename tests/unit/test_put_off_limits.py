"""
How large a record may be that a worker puts off, from its settings and from its topics.
"""

import pytest

from schemas.verdict import Mode
from worker.adapters.topic_plan import retry_message_bytes
from worker.operation import failing
from worker.operation.failing import retries_of
from worker.settings.load import load_settings
from worker.settings.tree import Settings


@pytest.fixture
def settings() -> Settings:
    """
    With two retry topics.
    """
    sets = ["retry.delays_s=[30, 300]", "encoder.model=x", "bank.path=x"]
    return load_settings(config=None, overlay=None, environ={}, sets=sets).settings


@pytest.mark.parametrize("found", [None, 1_000, 10**9])
def test_the_narrower_of_producer_and_topics_counts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, found: int | None
) -> None:
    """
    As planned where the brokers do not say, less where a topic takes less, never more than the producer sends.
    """
    monkeypatch.setattr(failing, "least_limit_bytes", lambda _settings, names: found if len(names) == 2 else -1)
    planned = retry_message_bytes(settings.kafka)

    assert min(planned, found or planned) == retries_of(settings, "live").most_bytes


@pytest.mark.parametrize("mode", ["scan", "replay"])
def test_who_puts_nothing_off_asks_nobody(settings: Settings, monkeypatch: pytest.MonkeyPatch, mode: Mode) -> None:
    """
    No broker is needed to look at files.
    """
    monkeypatch.setattr(failing, "least_limit_bytes", lambda *_: pytest.fail("asked the brokers"))

    assert () == retries_of(settings, mode).delays_s
